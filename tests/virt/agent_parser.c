/* Reads one frame from standard input with the agent's own code and prints the request's fields, each ended by a NUL.
 * Exits 1 when the agent would refuse it. */
#define main agent_main
#include AGENT
#undef main

int main(void)
{
    static char payload[MAX_PAYLOAD + 1];
    static struct request request;
    uint32_t length;
    if (read_frame(0, payload, &length) != 'R' || !parse_request(payload, length, &request)) return 1;
    for (int word = 0; word < request.argc; word++) printf("argv=%s%c", request.argv[word], 0);
    for (int word = 0; word < request.envc; word++) printf("env=%s%c", request.env[word], 0);
    printf("cwd=%s%cuid=%lu%cgid=%lu%c", request.cwd, 0, request.uid, 0, request.gid, 0);
    if (request.data) printf("data=%s%c", request.data, 0);
    return request.argv[request.argc] || request.env[request.envc];
}
