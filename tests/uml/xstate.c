/* Lets user-mode Linux write the registers of its processes on machines with AMX; loaded into it with LD_PRELOAD.
 *
 * Linux before 6.10 as user-mode Linux knows 2696 bytes of a process's extended state, which ends before AMX's tiles.
 * The machine's kernel gives as much as is asked for, but takes all or nothing (EFAULT). So what is written here is
 * completed with what is there; nothing under user-mode Linux uses the tiles. */
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Not on the stack: user-mode Linux calls from its kernel stacks, which are small. It has one thread. */
static char whole[64 * 1024];

long ptrace(enum __ptrace_request request, ...) {
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);

    struct iovec state = {whole, sizeof whole};
    if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE) {
        const struct iovec *given = data;
        if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, address, &state) < 0)
            return -1;
        if (given->iov_len < state.iov_len) {
            memcpy(whole, given->iov_base, given->iov_len);
            data = &state;
        }
    }
    /* The system call of the PEEK requests, which the C library changes, takes an address for the result. */
    long word;
    int peeks = request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER;
    long result = syscall(SYS_ptrace, request, pid, address, peeks ? &word : data);
    if (result < 0 || !peeks)
        return result;
    errno = 0;
    return word;
}
