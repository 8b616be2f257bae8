/* cloche-oci: the OCI runtime's command line. It finds the interpreter and the package that it came with and executes
 * the program there (cloche/runtime/oci/program.py), with an environment that is built and not inherited. */
#define _GNU_SOURCE
#include <errno.h>
#include <glob.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef PYTHON
#define PYTHON "/usr/bin/python3"   /* of who built it; the one beside the program goes before */
#endif

/* what the program may know of its caller's environment */
static const char *const kept[] = {"XDG_RUNTIME_DIR=", "LISTEN_FDS=", "LISTEN_PID=", "LISTEN_FDNAMES=", "NOTIFY_SOCKET=", "TERM=", "HOME="};
static const char start[] =
	"import sys; sys.path.insert(0, sys.argv.pop(1))\n"
	"from cloche.runtime.oci.program import program\n"
	"program(sys.argv[1:])";

static int is_there(const char *path) { return !access(path, F_OK); }

/* The directory that the package `cloche` is in: above the program's own, or in the library beside its bin. */
static int package(const char *folder, char *found) {
	char path[PATH_MAX];
	glob_t g;
	snprintf(path, sizeof path, "%.4000s/oci/program.py", folder);
	if (is_there(path)) return snprintf(found, PATH_MAX, "%.4000s/../..", folder), 1;
	snprintf(path, sizeof path, "%.4000s/../lib/python3*/site-packages/cloche/runtime/oci/program.py", folder);
	if (!glob(path, 0, 0, &g) && g.gl_pathc) {
		snprintf(found, PATH_MAX, "%s", g.gl_pathv[0]);
		for (int k = 0; k < 4; k++) dirname(found);
		return 1;
	}
	return 0;
}

extern char **environ;

int main(int argc, char **argv) {
	char self[PATH_MAX], where[PATH_MAX], python[PATH_MAX];
	const char *folder;
	char **args = calloc(argc + 16, sizeof *args), *env[sizeof kept / sizeof *kept + 2];
	int n = readlink("/proc/self/exe", self, sizeof self - 1), a = 0, e = 0;
	if (n < 0 || !args) return perror("cloche-oci: /proc/self/exe"), 1;
	self[n] = 0;
	folder = dirname(self);
	if (!package(folder, where)) return fprintf(stderr, "cloche-oci: no package cloche beside %s\n", folder), 1;
	snprintf(python, sizeof python, "%.4000s/python3", folder);
	if (!is_there(python)) snprintf(python, sizeof python, "%s", PYTHON);
	args[a++] = python;
	for (const char *const *f = (const char *const[]){"-I", "-S", "-B", "-X", "frozen_modules=on", "-c", start, where, 0}; *f; f++) args[a++] = (char *)*f;
	for (int k = 1; k < argc; k++) args[a++] = argv[k];
	for (char **v = environ; *v; v++)
		for (unsigned k = 0; k < sizeof kept / sizeof *kept; k++)
			if (!strncmp(*v, kept[k], strlen(kept[k])) && e < (int)(sizeof env / sizeof *env) - 2) env[e++] = *v;
	env[e++] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	env[e] = 0;
	execve(python, args, env);
	return fprintf(stderr, "cloche-oci: %s: %s\n", python, strerror(errno)), 1;
}
