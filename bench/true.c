/* The program of the benchmark's image: ends at once with 0; with an argument it waits to be killed. */
#include <unistd.h>

int main(int count, char **arguments)
{
	(void)arguments;
	while (count > 1)
		pause();
	return 0;
}
