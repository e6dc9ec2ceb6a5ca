/* The agent's whole way with a command, in a container in place of a guest: standard input is the control port (a
 * socket), standard output the output port. Its power-off is its end. Only as the first process of a pid namespace: it
 * ends everything else that it sees. */
#define _GNU_SOURCE
#include <sys/reboot.h>
#include <unistd.h>
#define reboot(how) _exit(0)
#define main agent_main
#include AGENT
#undef main

int main(void)
{
    static char payload[MAX_PAYLOAD + 1];
    static struct request request;
    static struct fields durations;
    uint32_t length;
    if (getpid() != 1) return 2;
    control = fcntl(0, F_DUPFD_CLOEXEC, 3);
    int output = fcntl(1, F_DUPFD_CLOEXEC, 3);
    mount_at("sysfs", "/sys", 0, NULL);
    int64_t since_ns = 0;
    lap(&durations, "boot_ns", &since_ns);
    prepare_root(-1); /* without a disk there is none to wait for */
    raise_loopback();
    fcntl(output, F_SETFL, O_NONBLOCK);
    struct fields hello = {.length = 0};
    add_field(&hello, "protocol", PROTOCOL);
    send_frame('H', hello.text, hello.length);
    if (read_frame(control, payload, &length) != 'R' || !parse_request(payload, length, &request)) return 3;
    run(&request, output, &durations);
    answer_pings(payload);
}
