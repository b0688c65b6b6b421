/* Which system calls a worker may make: the table that sandbox.c turns into a filter, and nothing else.

   A call that stands here without a test has its verdict. One with a test is allowed if it passes, and has its verdict
   otherwise. A call that does not stand here fails with EPERM. For Linux on x86-64 and AArch64; on other processors
   UG_FILTER_ARCHITECTURE is not defined. */
#ifndef UPLOADGUARD_SANDBOX_CALLS_H
#define UPLOADGUARD_SANDBOX_CALLS_H

#include <sys/syscall.h>

/* Numbers that older headers lack. From 424 on they are the same for all processors. */
#ifndef __NR_pidfd_send_signal
#define __NR_pidfd_send_signal 424
#endif
#ifndef __NR_io_uring_setup
#define __NR_io_uring_setup 425
#define __NR_io_uring_enter 426
#define __NR_io_uring_register 427
#endif
#ifndef __NR_open_tree
#define __NR_open_tree 428
#define __NR_move_mount 429
#define __NR_fsopen 430
#define __NR_fsconfig 431
#define __NR_fsmount 432
#define __NR_fspick 433
#endif
#ifndef __NR_pidfd_open
#define __NR_pidfd_open 434
#endif
#ifndef __NR_clone3
#define __NR_clone3 435
#endif
#ifndef __NR_pidfd_getfd
#define __NR_pidfd_getfd 438
#endif
#ifndef __NR_mount_setattr
#define __NR_mount_setattr 442
#endif
#ifndef __NR_landlock_create_ruleset
#define __NR_landlock_create_ruleset 444
#define __NR_landlock_restrict_self 446
#endif

#define NO_SUCH_CALL UINT32_MAX

#if defined(__x86_64__) && defined(__LP64__)
#define UG_FILTER_ARCHITECTURE UINT32_C(0xC000003E)
#ifndef __NR_rseq
#define __NR_rseq 334
#endif
#elif defined(__aarch64__) && defined(__AARCH64EL__) && defined(__LP64__)
#define UG_FILTER_ARCHITECTURE UINT32_C(0xC00000B7)
#ifndef __NR_rseq
#define __NR_rseq 293
#endif
/* Calls that this one never had. */
#define __NR_fork NO_SUCH_CALL
#define __NR_vfork NO_SUCH_CALL
#define __NR_iopl NO_SUCH_CALL
#define __NR_ioperm NO_SUCH_CALL
#define __NR_modify_ldt NO_SUCH_CALL
#define __NR_poll NO_SUCH_CALL
#define __NR_select NO_SUCH_CALL
#define __NR_time NO_SUCH_CALL
#endif

#ifdef UG_FILTER_ARCHITECTURE

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define CALL_ALLOW UINT32_C(0x7FFF0000)
#define CALL_KILL UINT32_C(0x80000000) /* ends the whole process with SIGSYS */
#define CALL_FAIL(error) (UINT32_C(0x00050000) | (error))
#define CALL_DENY CALL_FAIL(EPERM)

typedef enum {
    NO_TEST,
    NO_BITS,       /* none of `value` is set in the argument */
    IS_NULL,
    IS_OWN_PID,
    ONE_OF,        /* the argument is one of `values` */
    STARTS_THREAD, /* the argument is flags of clone that make a thread of this process */
} call_test;

typedef struct {
    uint32_t number;
    uint32_t action; /* the verdict, or the one if the test fails */
    call_test test;
    unsigned argument; /* which one is tested, from 0 */
    uint32_t value;
    const uint32_t *values;
} call_rule;

/* What the C libraries start a thread with; the first keeps it in this process. */
#define THREAD_FLAG UINT32_C(0x00010000)
#define THREAD_FLAGS UINT32_C(0x007D0F00)

#define END_OF_VALUES UINT32_MAX

/* Not F_SETOWN and its like, which send signals to other processes. */
static const uint32_t fcntl_commands[] = {F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD, F_DUPFD_CLOEXEC, END_OF_VALUES};
static const uint32_t ioctl_requests[] = {FIONREAD, FIONBIO, FIOCLEX, TCGETS, END_OF_VALUES};
static const uint32_t prctl_options[] = {PR_SET_NAME,    PR_GET_NAME,         PR_GET_DUMPABLE, PR_GET_PDEATHSIG,
                                         PR_GET_SECCOMP, PR_GET_NO_NEW_PRIVS, END_OF_VALUES};

#define ALLOW(call) {__NR_##call, CALL_ALLOW, NO_TEST, 0, 0, NULL}
#define KILL(call) {__NR_##call, CALL_KILL, NO_TEST, 0, 0, NULL}

/* The frequent ones first: the kernel remembers which calls are always allowed, but not on every processor. */
static const call_rule call_rules[] = {
    /* Memory: no new code, and nothing that memory limits do not count. */
    {__NR_mmap, CALL_DENY, NO_BITS, 2, PROT_EXEC, NULL},
    {__NR_mprotect, CALL_DENY, NO_BITS, 2, PROT_EXEC, NULL},
    ALLOW(futex),
    ALLOW(munmap),
    ALLOW(madvise),
    ALLOW(brk),
    ALLOW(mremap),

    /* Answering on descriptors that are open. An address would be another way out. */
    ALLOW(read),
    ALLOW(write),
    ALLOW(recvmsg),
    ALLOW(sendmsg),
    ALLOW(recvfrom),
    {__NR_sendto, CALL_DENY, IS_NULL, 4, 0, NULL},
    ALLOW(readv),
    ALLOW(writev),
    ALLOW(pread64),
    ALLOW(lseek),
    ALLOW(fstat),
    ALLOW(close),
    ALLOW(poll),
    ALLOW(ppoll),
    ALLOW(select),
    ALLOW(pselect6),
    {__NR_fcntl, CALL_DENY, ONE_OF, 1, 0, fcntl_commands},
    {__NR_ioctl, CALL_DENY, ONE_OF, 1, 0, ioctl_requests},

    /* Threads, and no process. clone3 hides its flags behind a pointer; C libraries then take clone. */
    {__NR_clone, CALL_KILL, STARTS_THREAD, 0, 0, NULL},
    {__NR_clone3, CALL_FAIL(ENOSYS), NO_TEST, 0, 0, NULL},
    ALLOW(set_robust_list),
    ALLOW(rseq),
    ALLOW(exit),
    ALLOW(exit_group),
    ALLOW(sched_yield),
    ALLOW(sched_getaffinity),
    ALLOW(getcpu),
    {__NR_prctl, CALL_DENY, ONE_OF, 0, 0, prctl_options},

    /* Signals to itself: abort() must end as what it is. */
    ALLOW(rt_sigprocmask),
    ALLOW(rt_sigaction),
    ALLOW(rt_sigreturn),
    ALLOW(sigaltstack),
    ALLOW(restart_syscall),
    {__NR_tgkill, CALL_KILL, IS_OWN_PID, 0, 0, NULL},
    {__NR_tkill, CALL_DENY, IS_OWN_PID, 0, 0, NULL},
    {__NR_kill, CALL_KILL, IS_OWN_PID, 0, 0, NULL},

    /* Clocks, chance, and who one is. */
    ALLOW(clock_gettime),
    ALLOW(clock_getres),
    ALLOW(clock_nanosleep),
    ALLOW(nanosleep),
    ALLOW(gettimeofday),
    ALLOW(time),
    ALLOW(getrandom),
    ALLOW(getpid),
    ALLOW(getppid),
    ALLOW(gettid),
    ALLOW(getuid),
    ALLOW(geteuid),
    ALLOW(getgid),
    ALLOW(getegid),
    ALLOW(getrusage),
    ALLOW(sysinfo),
    {__NR_prlimit64, CALL_DENY, IS_NULL, 2, 0, NULL}, /* to read limits, not to set them */

    /* What no decoder does by mistake. */
    KILL(execve),
    KILL(execveat),
    KILL(fork),
    KILL(vfork),
    KILL(socket),
    KILL(connect),
    KILL(bind),
    KILL(listen),
    KILL(accept),
    KILL(accept4),
    KILL(ptrace),
    KILL(process_vm_readv),
    KILL(process_vm_writev),
    KILL(kcmp),
    KILL(pidfd_open),
    KILL(pidfd_getfd),
    KILL(pidfd_send_signal),
    KILL(rt_sigqueueinfo),
    KILL(rt_tgsigqueueinfo),
    KILL(bpf),
    KILL(userfaultfd),
    KILL(perf_event_open),
    KILL(io_uring_setup),
    KILL(io_uring_enter),
    KILL(io_uring_register),
    KILL(add_key),
    KILL(request_key),
    KILL(keyctl),
    KILL(unshare),
    KILL(setns),
    KILL(chroot),
    KILL(pivot_root),
    KILL(mount),
    KILL(umount2),
    KILL(open_tree),
    KILL(move_mount),
    KILL(fsopen),
    KILL(fsconfig),
    KILL(fsmount),
    KILL(fspick),
    KILL(mount_setattr),
    KILL(open_by_handle_at),
    KILL(fanotify_init),
    KILL(init_module),
    KILL(finit_module),
    KILL(delete_module),
    KILL(kexec_load),
    KILL(reboot),
    KILL(swapon),
    KILL(swapoff),
    KILL(setuid),
    KILL(setgid),
    KILL(setreuid),
    KILL(setregid),
    KILL(setresuid),
    KILL(setresgid),
    KILL(setgroups),
    KILL(setfsuid),
    KILL(setfsgid),
    KILL(capset),
    KILL(personality),
    KILL(iopl),
    KILL(ioperm),
    KILL(modify_ldt),
};

#endif

#endif
