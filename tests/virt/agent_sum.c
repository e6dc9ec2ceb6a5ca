/* Prints the sum that the agent's own code finds for the file named first. */
#define main agent_main
#include AGENT
#undef main

int main(int count, char **words)
{
    char text[65];
    if (count != 2 || !sha256_file(words[1], text)) return 1;
    puts(text);
    return 0;
}
