/* The walls around a worker: prctl, capabilities, Landlock, seccomp.

   What the kernel's headers say is written out here, as the headers of an older system lack the newer parts and some
   systems install none. The numbers are part of the kernel's stable interface.
   Sources: the kernel's Documentation/userspace-api/{seccomp_filter,landlock,no_new_privs}.rst and include/uapi. */
#define _GNU_SOURCE
#include "sandbox.h"

#include <errno.h>

#ifdef __linux__
#include "sandbox_calls.h"
#endif

#if !defined(__linux__) || !defined(UG_FILTER_ARCHITECTURE)
static int not_here(void)
{
    errno = ENOSYS;
    return -1;
}
#endif

#ifdef __linux__

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <unistd.h>

/* ---- prctl and capabilities ---- */

int ug_die_with_parent(void)
{
    return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
}

int ug_make_non_dumpable(void)
{
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

int ug_set_no_new_privs(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

enum { CAPABILITY_VERSION_3 = 0x20080522, THREAD_STACK_BYTES = 256 << 10 };

typedef struct {
    uint32_t version;
    int pid; /* 0: the calling thread */
} capability_header;

typedef struct {
    uint32_t effective, permitted, inheritable;
} capability_set;

int ug_drop_capabilities(void)
{
    capability_header header = {CAPABILITY_VERSION_3, 0};
    capability_set none[2] = {{0, 0, 0}, {0, 0, 0}};
    return (int)syscall(SYS_capset, &header, none);
}

int ug_read_state(ug_process_state *state)
{
    capability_header header = {CAPABILITY_VERSION_3, 0};
    capability_set held[2];
    int signal_number = 0;
    int dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
    int no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    if (dumpable < 0 || no_new_privs < 0 || prctl(PR_GET_PDEATHSIG, &signal_number, 0, 0, 0) < 0 ||
        syscall(SYS_capget, &header, held) < 0)
        return -1;
    state->non_dumpable = dumpable == 0;
    state->dies_with_parent = signal_number == SIGKILL;
    state->no_new_privs = no_new_privs == 1;
    state->no_capabilities = !(held[0].effective | held[1].effective | held[0].permitted | held[1].permitted);
    return 0;
}

/* ---- threads ---- */

static void *end_at_once(void *argument)
{
    return argument;
}

/* Without allocating in it, as a C library would reserve memory of its own for a thread that does. */
int ug_try_thread(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int error = pthread_attr_init(&attributes);
    if (error == 0) {
        pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);
        error = pthread_create(&thread, &attributes, end_at_once, NULL);
        pthread_attr_destroy(&attributes);
    }
    if (error == 0)
        error = pthread_join(thread, NULL);
    errno = error;
    return error == 0 ? 0 : -1;
}

/* ---- Landlock ---- */

typedef struct {
    uint64_t handled_access_fs, handled_access_net, scoped;
} landlock_ruleset;

enum {
    LANDLOCK_VERSION_FLAG = 1,
    LANDLOCK_NET = 3,    /* bind and connect, TCP */
    LANDLOCK_SCOPES = 3, /* abstract sockets and signals to processes outside */
};

int ug_landlock_abi(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, LANDLOCK_VERSION_FLAG);
    return abi > 0 ? (int)abi : 0;
}

int ug_restrict_landlock(int abi)
{
    /* 13 rights from the start, then refer, truncate and the ioctls of devices. A ruleset without rules allows none. */
    unsigned rights = abi >= 5 ? 16 : abi >= 3 ? 15 : abi == 2 ? 14 : 13;
    landlock_ruleset ruleset = {
        .handled_access_fs = (UINT64_C(1) << rights) - 1,
        .handled_access_net = abi >= 4 ? LANDLOCK_NET : 0,
        .scoped = abi >= 6 ? LANDLOCK_SCOPES : 0,
    };
    int fd = (int)syscall(SYS_landlock_create_ruleset, &ruleset, sizeof ruleset, 0);
    if (fd < 0)
        return -1;
    int status = (int)syscall(SYS_landlock_restrict_self, fd, 0);
    int error = errno;
    close(fd);
    errno = error;
    return status;
}

/* ---- seccomp ---- */

#ifdef UG_FILTER_ARCHITECTURE

enum {
    SECCOMP_SET_FILTER = 1,
    SECCOMP_ACTION_AVAILABLE = 2,
    SECCOMP_ALL_THREADS = 1,
};

/* The instructions of classic BPF that the filter needs. */
enum {
    BPF_LOAD_WORD = 0x20,    /* A = the word at offset k */
    BPF_JUMP_EQUAL = 0x15,   /* if A == k */
    BPF_JUMP_AT_LEAST = 0x35,
    BPF_JUMP_ANY_BIT = 0x45, /* if A & k */
    BPF_RETURN = 0x06,
};

typedef struct {
    uint16_t code;
    uint8_t if_true, if_false; /* instructions to skip */
    uint32_t k;
} instruction;

typedef struct {
    uint16_t length;
    instruction *code;
} program;

/* What the filter sees of a call. */
typedef struct {
    int32_t number;
    uint32_t architecture;
    uint64_t instruction_pointer;
    uint64_t arguments[6];
} call_data;

enum { MAX_INSTRUCTIONS = 1024, X32_CALLS = 0x40000000 };

static void put(program *p, uint16_t code, uint32_t k, uint8_t if_true, uint8_t if_false)
{
    if (p->length < MAX_INSTRUCTIONS)
        p->code[p->length] = (instruction){code, if_true, if_false, k};
    p->length++; /* too long a program is noticed at its end */
}

static void put_load(program *p, unsigned argument, bool high)
{
    put(p, BPF_LOAD_WORD, (uint32_t)(offsetof(call_data, arguments) + 8 * argument + (high ? 4 : 0)), 0, 0);
}

static void put_return(program *p, uint32_t action)
{
    put(p, BPF_RETURN, action, 0, 0);
}

/* The verdict on one call, once its number has been recognized. Arguments narrower than a word are compared in their
   lower half, as the kernel reads no more of them. */
static void put_verdict(program *p, const call_rule *rule)
{
    switch (rule->test) {
    case NO_TEST:
        break;
    case NO_BITS:
        put_load(p, rule->argument, false);
        put(p, BPF_JUMP_ANY_BIT, rule->value, 1, 0);
        put_return(p, CALL_ALLOW);
        break;
    case IS_NULL:
        put_load(p, rule->argument, false);
        put(p, BPF_JUMP_EQUAL, 0, 0, 3);
        put_load(p, rule->argument, true);
        put(p, BPF_JUMP_EQUAL, 0, 0, 1);
        put_return(p, CALL_ALLOW);
        break;
    case IS_OWN_PID:
        put_load(p, rule->argument, false);
        put(p, BPF_JUMP_EQUAL, (uint32_t)getpid(), 0, 1);
        put_return(p, CALL_ALLOW);
        break;
    case ONE_OF:
        put_load(p, rule->argument, false);
        for (const uint32_t *value = rule->values; *value != END_OF_VALUES; value++) {
            put(p, BPF_JUMP_EQUAL, *value, 0, 1);
            put_return(p, CALL_ALLOW);
        }
        break;
    case STARTS_THREAD:
        put_load(p, rule->argument, false);
        put(p, BPF_JUMP_ANY_BIT, ~THREAD_FLAGS, 2, 0);
        put(p, BPF_JUMP_ANY_BIT, THREAD_FLAG, 0, 1);
        put_return(p, CALL_ALLOW);
        break;
    }
    put_return(p, rule->action);
}

static void put_rule(program *p, const call_rule *rule)
{
    if (rule->number == NO_SUCH_CALL)
        return;
    uint16_t jump = p->length;
    put(p, BPF_JUMP_EQUAL, rule->number, 0, 0);
    put_verdict(p, rule);
    if (p->length <= MAX_INSTRUCTIONS)
        p->code[jump].if_false = (uint8_t)(p->length - jump - 1);
}

static int set_seccomp(unsigned operation, unsigned flags, const void *argument)
{
    return (int)syscall(SYS_seccomp, operation, flags, argument);
}

bool ug_seccomp_available(void)
{
    static const uint32_t actions[] = {CALL_ALLOW, CALL_FAIL(0), CALL_KILL};
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++)
        if (set_seccomp(SECCOMP_ACTION_AVAILABLE, 0, &actions[i]) != 0)
            return false;
    return true;
}

int ug_filter_calls(void)
{
    instruction code[MAX_INSTRUCTIONS];
    program filter = {0, code};
    put(&filter, BPF_LOAD_WORD, offsetof(call_data, architecture), 0, 0);
    put(&filter, BPF_JUMP_EQUAL, UG_FILTER_ARCHITECTURE, 1, 0);
    put_return(&filter, CALL_KILL);
    put(&filter, BPF_LOAD_WORD, offsetof(call_data, number), 0, 0);
    put(&filter, BPF_JUMP_AT_LEAST, X32_CALLS, 0, 1);
    put_return(&filter, CALL_KILL);
    for (size_t i = 0; i < sizeof call_rules / sizeof call_rules[0]; i++)
        put_rule(&filter, &call_rules[i]);
    put_return(&filter, CALL_DENY);
    if (filter.length > MAX_INSTRUCTIONS) {
        errno = E2BIG;
        return -1;
    }
    int status = set_seccomp(SECCOMP_SET_FILTER, SECCOMP_ALL_THREADS, &filter);
    if (status > 0) {
        errno = EBUSY; /* a thread that has a filter of its own */
        return -1;
    }
    return status;
}

#endif

#else

int ug_try_thread(void)
{
    return not_here();
}

int ug_die_with_parent(void)
{
    return not_here();
}

int ug_make_non_dumpable(void)
{
    return not_here();
}

int ug_drop_capabilities(void)
{
    return not_here();
}

int ug_set_no_new_privs(void)
{
    return not_here();
}

int ug_read_state(ug_process_state *state)
{
    *state = (ug_process_state){false, false, false, false};
    return not_here();
}

int ug_landlock_abi(void)
{
    return 0;
}

int ug_restrict_landlock(int abi)
{
    (void)abi;
    return not_here();
}

#endif

#ifndef UG_FILTER_ARCHITECTURE

bool ug_seccomp_available(void)
{
    return false;
}

int ug_filter_calls(void)
{
    return not_here();
}

#endif
