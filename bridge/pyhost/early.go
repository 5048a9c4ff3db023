//go:build python

package pyhost

/*
#include <signal.h>
#include <string.h>
#include <unistd.h>

static void agflow_end_early(int number) { _exit(128 + number); }

// Ends the process with the status of SIGINT or SIGTERM until Go's runtime takes them, one that
// came while this program was loaded included: the command blocks them before it becomes the host.
__attribute__((constructor)) static void agflow_listen_early(void) {
	struct sigaction end, now;
	sigset_t both;
	int numbers[] = {SIGINT, SIGTERM};
	memset(&end, 0, sizeof end);
	end.sa_handler = agflow_end_early;
	end.sa_flags = SA_ONSTACK;
	sigemptyset(&both);
	for (int i = 0; i < 2; i++) {
		sigaddset(&both, numbers[i]);
		if (sigaction(numbers[i], NULL, &now) == 0 && now.sa_handler == SIG_DFL)
			sigaction(numbers[i], &end, NULL);
	}
	sigprocmask(SIG_UNBLOCK, &both, NULL);
}
*/
import "C"
