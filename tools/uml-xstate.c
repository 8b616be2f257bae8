/* Preloaded into User Mode Linux by tools/uml-lane. Its kernel (6.1) sets the vector registers of a process from 2696
 * bytes, and the host's takes the whole state that the processor has or nothing. Where that is more, as with AMX
 * (11008 bytes), each of the machine's processes would die at its birth, and the first of them is init.
 *
 * What is missing is given as zeros, and so is the mark that tiles are in use: nobody in there can have asked for them
 * (arch_prctl(2), ARCH_REQ_XCOMP_PERM). The machine's kernel is one thread, so one buffer will do. */
#include <cpuid.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PEEK_FIRST = 1, PEEK_LAST = 3, SET_REGISTERS = 0x4205, XSTATE = 0x202, HEADER = 512, MOST = 65536 };
static const uint64_t TILES = 3 << 17;

long ptrace(int request, ...) {
	static _Alignas(64) unsigned char whole[MOST];
	va_list rest;
	va_start(rest, request);
	int pid = va_arg(rest, int);
	uintptr_t address = va_arg(rest, uintptr_t);
	void *data = va_arg(rest, void *);
	va_end(rest);
	struct iovec state;
	if (request == SET_REGISTERS && address == XSTATE) {
		unsigned a, size, c, d;
		__cpuid_count(13, 0, a, size, c, d);
		memcpy(&state, data, sizeof state);
		if (state.iov_len < size && size <= sizeof whole) {
			uint64_t used;
			memcpy(whole, state.iov_base, state.iov_len);
			memcpy(&used, whole + HEADER, sizeof used);
			used &= ~TILES;
			memcpy(whole + HEADER, &used, sizeof used);
			state.iov_base = whole;
			state.iov_len = size;
			data = &state;
		}
	}
	int peeks = request >= PEEK_FIRST && request <= PEEK_LAST; /* the C library returns what the kernel stores */
	long word, status = syscall(SYS_ptrace, request, pid, address, peeks ? &word : data);
	return peeks && !status ? word : status;
}
