/* cloche-oci: the OCI runtime's command line. What `create` has stored is executed here: `state`, `start`, `kill`,
 * `delete` and `--version` in their plain form need no interpreter. All else, and whatever is not as it should be, is
 * left to the program in Python (cloche/runtime/oci/program.py), which is executed in this one's place with an
 * environment that is built and not inherited. So nothing here explains an error. The files are those of state.py. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PYTHON
#define PYTHON "/usr/bin/python3"   /* of who built it; the one beside the program goes before */
#endif
#ifndef VERSION
#define VERSION "0"
#endif

enum { SEND_SIGNAL = 424, OPEN_PROCESS = 434 };   /* system calls, the same on every architecture */
enum { FAILED = 2, STARTED = 4, RECORD = 16 };    /* of bell's reports */
enum { EXITING = 4 };                             /* PF_EXITING, proc_pid_stat(5), flags */
enum { GONE, STOPPED, CREATED, RUNNING, PAUSED, UNKNOWN };
static const char *const names[] = {"", "stopped", "created", "running", "paused"};
static char **words;   /* the whole command line, for Python */
static int count;

/* ---- what is stored ---- */

static int folder = -1;                /* ROOT/ID */
static char text[1 << 16];

static ssize_t slurp(int at, const char *name) {   /* a file into `text`; -1 when there is none, or it is too long */
	int fd = openat(at, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0) close(fd);
	text[n < 0 ? 0 : n] = 0;
	return n == sizeof text - 1 ? -1 : n;
}

static int is_there(const char *path) { return !access(path, F_OK); }

static int stat_of(int pid, unsigned long long *started) {   /* 1: it lives; 0: it is gone or ending */
	char path[64], state, *rest;
	unsigned long flags;
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	if (slurp(AT_FDCWD, path) < 0 || !(rest = strrchr(text, ')'))) return 0;
	if (sscanf(rest + 2, "%c %*d %*d %*d %*d %*d %lu %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &state, &flags, started) != 3) return 0;
	return state != 'Z' && state != 'X' && !(flags & EXITING);
}

static int is_frozen(void) {   /* -1: it cannot be told */
	char path[PATH_MAX];
	if (slurp(folder, "freezer") < 0) return errno == ENOENT ? 0 : -1;
	snprintf(path, sizeof path, "%.4000s/freezer.state", text);
	if (slurp(AT_FDCWD, path) >= 0) return strncmp(text, "FROZEN", 6) ? strncmp(text, "THAWED", 6) ? -1 : 0 : 1;
	if (slurp(folder, "freezer") < 0) return -1;
	snprintf(path, sizeof path, "%.4000s/cgroup.events", text);
	return slurp(AT_FDCWD, path) < 0 ? -1 : !!strstr(text, "frozen 1");
}

static int status_of(int *pid, unsigned long long *started) {
	unsigned long long now = 0;
	int fd, lives, frozen;
	if (slurp(folder, "process") < 0 || sscanf(text, "%d %llu", pid, started) != 2) return UNKNOWN;
	lives = stat_of(*pid, &now);
	if (!lives || now != *started) return STOPPED;
	if ((frozen = is_frozen())) return frozen < 0 ? UNKNOWN : PAUSED;
	fd = openat(folder, "start", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) return errno == ENXIO || errno == ENOENT ? RUNNING : UNKNOWN;
	close(fd);
	return faccessat(folder, "made", F_OK, 0) ? UNKNOWN : CREATED;
}

static int lock(const char *root, const char *id) {   /* waits for whoever changes the container */
	struct stat a, b;
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%s/%s", root, id);
	return flock(folder, LOCK_EX) || fstat(folder, &a) || stat(path, &b) || a.st_ino != b.st_ino || a.st_dev != b.st_dev ? -1 : 0;
}

/* ---- the commands: 0 when it is done, -1 when Python shall do it ---- */

static int tell(const char *id) {
	unsigned long long started;
	int pid = 0, status = status_of(&pid, &started);
	if (status == UNKNOWN || slurp(folder, "told") < 0) return -1;
	printf("{\n  \"ociVersion\": \"%.*s\",\n  \"id\": \"%s\",\n  \"status\": \"%s\",\n  \"pid\": %d,\n%s\n", (int)strcspn(text, "\n"), text,
	       id, names[status], status == STOPPED ? 0 : pid, text + strcspn(text, "\n") + 1);
	return fflush(stdout) ? -1 : 0;
}

static int start(void) {
	struct pollfd p[2] = {{.events = 0}, {.events = POLLIN}};   /* the reports' end, the process's */
	unsigned long long started, now;
	int pid, gate, begun = 0;
	ssize_t n;
	if (!faccessat(folder, "hooks", F_OK, 0) || status_of(&pid, &started) != CREATED) return -1;
	if ((p[0].fd = openat(folder, "status", O_RDONLY | O_NONBLOCK | O_CLOEXEC)) < 0) return -1;
	if ((p[1].fd = syscall(OPEN_PROCESS, pid, 0)) < 0 || !stat_of(pid, &now) || now != started) return -1;
	if ((gate = openat(folder, "start", O_WRONLY | O_NONBLOCK | O_CLOEXEC)) < 0) return -1;
	if (write(gate, "x", 1) != 1) return -1;
	close(gate);
	while (poll(p, 2, -1) < 0 && errno == EINTR);
	n = read(p[0].fd, text, sizeof text);   /* what a pipe holds at most */
	for (ssize_t at = 0; at + RECORD <= n; at += RECORD) {
		if (text[at] == FAILED) {   /* whoever explains it finds it there */
			int fd = openat(folder, "reports", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
			if (fd < 0 || write(fd, text, n) != n) return fprintf(stderr, "cloche-oci: start: it failed, and cannot be explained\n"), exit(1), -1;
			close(fd);
			return -1;
		}
		begun |= text[at] == STARTED;
	}
	if (begun) return 0;
	close(openat(folder, "reports", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
	return -1;
}

static int number_of(const char *s) {
	static const struct { const char *name; int number; } known[] = {{"TERM", 15}, {"KILL", 9}, {"INT", 2}, {"HUP", 1}, {"QUIT", 3}, {"USR1", 10}, {"USR2", 12}, {"STOP", 19}, {"CONT", 18}};
	char *end;
	long n = strtol(s, &end, 10);
	if (*s >= '0' && *s <= '9' && !*end) return n > 0 && n < 65 ? n : -1;
	if (!strncmp(s, "SIG", 3)) s += 3;
	for (unsigned k = 0; k < sizeof known / sizeof *known; k++) if (!strcmp(s, known[k].name)) return known[k].number;
	return -1;
}

static int send(int number) {
	unsigned long long started, now;
	int pid, status = status_of(&pid, &started), handle, r;
	if (number < 0 || (status != RUNNING && status != CREATED)) return -1;   /* on cgroup v1 the frozen must be thawed to die */
	if ((handle = syscall(OPEN_PROCESS, pid, 0)) < 0) return -1;
	r = stat_of(pid, &now) && now == started ? syscall(SEND_SIGNAL, handle, number, 0, 0) : -1;   /* looked at after opening */
	return close(handle), r;
}

static int delete(const char *root, const char *id) {
	unsigned long long started;
	char *line, *save, *groups;
	struct dirent *e;
	DIR *d;
	int pid;
	if (!faccessat(folder, "hooks", F_OK, 0) || status_of(&pid, &started) != STOPPED || slurp(folder, "groups") < 0) return -1;
	groups = strdup(text);
	for (line = strtok_r(groups, "\n", &save); line; line = strtok_r(0, "\n", &save)) if (rmdir(line) && errno != ENOENT) return -1;
	if (!(d = fdopendir(dup(folder)))) return -1;
	while ((e = readdir(d))) if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && unlinkat(folder, e->d_name, 0)) return -1;
	closedir(d);
	snprintf(text, sizeof text, "%s/%s", root, id);
	return rmdir(text);
}

/* ---- Python ---- */

/* what the program may know of its caller's environment */
static const char *const kept[] = {"XDG_RUNTIME_DIR=", "LISTEN_FDS=", "LISTEN_PID=", "LISTEN_FDNAMES=", "NOTIFY_SOCKET=", "TERM=", "HOME="};
static const char begin[] =
	"import sys; sys.path.insert(0, sys.argv.pop(1))\n"
	"from cloche.runtime.oci.program import program\n"
	"program(sys.argv[1:])";
extern char **environ;

/* The directory that the package `cloche` is in: above the program's own, or in the library beside its bin. */
static int package(const char *beside, char *found) {
	char path[PATH_MAX];
	glob_t g;
	snprintf(path, sizeof path, "%.4000s/oci/program.py", beside);
	if (is_there(path)) return snprintf(found, PATH_MAX, "%.4000s/../..", beside), 1;
	snprintf(path, sizeof path, "%.4000s/../lib/python3*/site-packages/cloche/runtime/oci/program.py", beside);
	if (!glob(path, 0, 0, &g) && g.gl_pathc) {
		snprintf(found, PATH_MAX, "%s", g.gl_pathv[0]);
		for (int k = 0; k < 4; k++) dirname(found);
		return 1;
	}
#ifdef PACKAGE
	return snprintf(found, PATH_MAX, PACKAGE), is_there(found);
#endif
	return 0;
}

static int python(void) {
	char self[PATH_MAX], where[PATH_MAX], program[PATH_MAX];
	const char *beside;
	char **args = calloc(count + 16, sizeof *args), *env[sizeof kept / sizeof *kept + 2];
	int n = readlink("/proc/self/exe", self, sizeof self - 1), a = 0, e = 0;
	if (n < 0 || !args) return perror("cloche-oci: /proc/self/exe"), 1;
	self[n] = 0;
	beside = dirname(self);
	if (!package(beside, where)) return fprintf(stderr, "cloche-oci: no package cloche beside %s\n", beside), 1;
	snprintf(program, sizeof program, "%.4000s/python3", beside);
	if (!is_there(program)) snprintf(program, sizeof program, "%s", PYTHON);
	args[a++] = program;
	for (const char *const *f = (const char *const[]){"-I", "-S", "-B", "-X", "frozen_modules=on", "-c", begin, where, 0}; *f; f++) args[a++] = (char *)*f;
	for (int k = 1; k < count; k++) args[a++] = words[k];
	for (char **v = environ; *v; v++)
		for (unsigned k = 0; k < sizeof kept / sizeof *kept; k++)
			if (!strncmp(*v, kept[k], strlen(kept[k])) && e < (int)(sizeof env / sizeof *env) - 2) env[e++] = *v;
	env[e++] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	env[e] = 0;
	execve(program, args, env);
	return fprintf(stderr, "cloche-oci: %s: %s\n", program, strerror(errno)), 1;
}

/* ---- the command line: what is not the plain form is Python's ---- */

static const char *value(int *at, const char *name) {   /* `--name value` or `--name=value` */
	size_t n = strlen(name);
	const char *w = words[*at];
	if (strncmp(w, name, n)) return 0;
	if (w[n] == '=') return w + n + 1;
	return w[n] || *at + 1 >= count ? 0 : words[++*at];
}

static int plain(const char *id) {
	return *id && strcmp(id, ".") && strcmp(id, "..") && strlen(id) < 256 && !id[strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")];
}

static int quick(void) {
	const char *root = 0, *log = 0, *v, *command, *id;
	int at = 1, force = 0, fd;
	if (count == 2 && (!strcmp(words[1], "--version") || !strcmp(words[1], "-v")))
		return printf("cloche-oci version " VERSION "\ncommit: " VERSION "\nspec: " SPEC "\n") < 0 || fflush(stdout) ? -1 : 0;
	for (; at < count && words[at][0] == '-'; at++) {
		if ((v = value(&at, "--root"))) root = v;
		else if ((v = value(&at, "--log"))) log = v;
		else if ((v = value(&at, "--log-format"))) { if (strcmp(v, "json") && strcmp(v, "text")) return -1; }
		else return -1;
	}
	if (at >= count || (!root && geteuid())) return -1;
	if (!root) root = "/run/cloche-oci";
	command = words[at++];
	if (!strcmp(command, "delete") && at < count && (!strcmp(words[at], "--force") || !strcmp(words[at], "-f"))) force = 1, at++;
	if (at >= count || root[0] != '/' || strstr(root, "/..") || strlen(root) > PATH_MAX - 300 || !plain(id = words[at++])) return -1;
	if (at != count && !(at + 1 == count && !strcmp(command, "kill"))) return -1;
	if (strcmp(command, "state") && strcmp(command, "start") && strcmp(command, "kill") && strcmp(command, "delete")) return -1;
	if (log && (fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644)) < 0) return -1;
	if (log) close(fd);
	snprintf(text, sizeof text, "%s/%s", root, id);
	if ((folder = open(text, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) return errno == ENOENT && force ? 0 : -1;
	if (!strcmp(command, "state")) return tell(id);
	if (!strcmp(command, "kill")) return send(number_of(at < count ? words[at] : "TERM"));
	if (lock(root, id)) return -1;
	return !strcmp(command, "start") ? start() : delete(root, id);
}

int main(int argc, char **argv) {
	int fd;
	while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd < 3);   /* or a file of ours would be the container's stdout */
	if (fd >= 0) close(fd);
	words = argv;
	count = argc;
	if (!quick()) return 0;
	if (folder >= 0) close(folder);   /* and with it the lock, which Python will want */
	return python();
}
