/* The load generator: the MTA side of many connections at once, in one thread. Options, the loop
 * and the report are here; a connection's flow is in connection.c. */
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "connection.h"

/* How many idle connections may be about to greet at a time. */
enum { IDLE_WINDOW = 64, EVENTS = 64 };

static const char usage[] =
    "usage: load [options] PATH | HOST PORT\n"
    "Sends messages to the filter on a unix socket PATH or at HOST PORT, checks every reply, and\n"
    "prints what it measured as one JSON object. Fails if any reply was wrong.\n"
    "  --connections N     at once (20)\n"
    "  --messages N        per connection (100)\n"
    "  --messages-total N  in all; connections are opened anew until they are sent\n"
    "                      (connections x messages)\n"
    "  --duration MS       no message begins later than so long after the first; those that\n"
    "                      are left are not sent (no limit)\n"
    "  --warm-up MS        what ends so early is counted, but not measured (0)\n"
    "  --headers N         per message (15)\n"
    "  --recipients N      per message (1)\n"
    "  --body BYTES        per message, sent in chunks of 65535 (4096)\n"
    "  --aborts 0|1        after each message ABORT, as Postfix sends it (0)\n"
    "  --piece BYTES       the most that is written at once; 4096 is what Postfix does (no limit)\n"
    "  --idle N            further connections that greet, stay and send nothing (0)\n"
    "  --pause             print \"ready\" once the idle ones stay, and go on when the\n"
    "                      standard input ends\n"
    "  --version N         of the protocol, 2 to 6 (6)\n"
    "  --actions MASK      offered (0x1ff)\n"
    "  --protocol MASK     offered (0x1fffff)\n"
    "  --timeout SECONDS   without any reply: an error (30)\n";

/* What the command line asks for. */
struct plan {
    struct load load;
    uint64_t connections;
    uint64_t messages;
    uint64_t total;
    uint64_t idle;
    uint64_t duration; /* ms; 0: no limit */
    uint64_t warm_up;  /* ms */
    bool pause;
};

/* Where measuring began. */
struct measured {
    uint64_t at; /* times_now() */
    uint64_t messages;
    double cpu; /* seconds of CPU time that this program had used */
};

/* Everything that runs. */
struct run {
    const struct load *load;
    struct connection *connections;
    struct results results;
    uint64_t open;      /* connections with messages that are not CLOSED */
    uint64_t idle;      /* idle connections that are not CLOSED */
    uint64_t unclaimed; /* messages that no connection has taken yet */
    uint64_t share;     /* messages per connection */
    uint64_t settled;   /* idle connections that stay, or failed */
    struct measured since;
    uint64_t ended; /* times_now() */
    bool started;
};

static void fail(const char *text, const char *detail)
{
    (void)fprintf(stderr, "load: %s%s%s\n", text, *detail ? ": " : "", detail);
    exit(2);
}

/* ------------------------------------------------------------------------------------ options */

static uint64_t parse_number(const char *name, const char *text, uint64_t max)
{
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 0);
    if (errno || end == text || *end || *text == '-' || value > max) {
        (void)fprintf(stderr, "load: --%s %s: give a number up to %llu\n", name, text,
                      (unsigned long long)max);
        exit(2);
    }
    return value;
}

static void parse_address(struct load *load, char **words, int count)
{
    if (count == 1) {
        struct sockaddr_un *un = (struct sockaddr_un *)&load->address;
        if (strlen(words[0]) >= sizeof un->sun_path)
            fail("the path is too long", words[0]);
        un->sun_family = AF_UNIX;
        (void)memcpy(un->sun_path, words[0], strlen(words[0]) + 1);
        load->address_len = sizeof *un;
        return;
    }
    struct addrinfo *found;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    const int error = getaddrinfo(words[0], words[1], &hints, &found);
    if (error)
        fail(words[0], gai_strerror(error));
    (void)memcpy(&load->address, found->ai_addr, found->ai_addrlen);
    load->address_len = found->ai_addrlen;
    freeaddrinfo(found);
}

static struct plan parse(int argc, char **argv)
{
    struct plan plan = {
        .load = {.mail = {.headers = 15, .recipients = 1, .body = 4096},
                 .offered = {MKIT_VERSION_MAX, MKIT_ALL_ACTIONS, MKIT_ALL_PROTOCOL},
                 .timeout = 30},
        .connections = 20,
        .messages = 100,
    };
    struct load *load = &plan.load;
    uint64_t headers = load->mail.headers, recipients = load->mail.recipients;
    uint64_t body = load->mail.body, timeout = load->timeout, version = load->offered.version;
    uint64_t piece = UINT32_MAX;
    uint64_t actions = load->offered.actions, protocol = load->offered.protocol;
    uint64_t aborts = load->aborts;
    const struct {
        const char *name;
        uint64_t *value;
        uint64_t max;
    } numbers[] = {
        {"connections", &plan.connections, 100000},
        {"messages", &plan.messages, UINT32_MAX},
        {"messages-total", &plan.total, UINT64_MAX},
        {"duration", &plan.duration, 86400000},
        {"warm-up", &plan.warm_up, 86400000},
        {"headers", &headers, 100000},
        {"recipients", &recipients, 1000000},
        {"body", &body, UINT32_MAX},
        {"aborts", &aborts, 1},
        {"piece", &piece, UINT32_MAX},
        {"idle", &plan.idle, 100000},
        {"version", &version, MKIT_VERSION_MAX},
        {"actions", &actions, UINT32_MAX},
        {"protocol", &protocol, UINT32_MAX},
        {"timeout", &timeout, 86400},
    };
    enum { NUMBERS = sizeof numbers / sizeof *numbers };
    struct option options[NUMBERS + 3] = {0};
    for (int i = 0; i < NUMBERS; i++)
        options[i] = (struct option){numbers[i].name, required_argument, NULL, i};
    options[NUMBERS] = (struct option){"pause", no_argument, NULL, NUMBERS};
    options[NUMBERS + 1] = (struct option){"help", no_argument, NULL, 'h'};
    for (int found; (found = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (found < NUMBERS) {
            *numbers[found].value = parse_number(numbers[found].name, optarg, numbers[found].max);
        } else if (found == NUMBERS) {
            plan.pause = true;
        } else {
            (void)fputs(usage, found == 'h' ? stdout : stderr);
            exit(found == 'h' ? 0 : 2);
        }
    }
    if (argc - optind != 1 && argc - optind != 2)
        fail("give the filter's socket: a path, or a host and a port", "");
    if (version < MKIT_VERSION_MIN || timeout == 0 || recipients == 0 || piece == 0)
        fail("--version is 2 to 6, --timeout, --recipients and --piece are at least 1", "");
    load->mail = (struct mail){(unsigned)headers, (unsigned)recipients, (size_t)body};
    load->offered = (struct options){(uint32_t)version, (uint32_t)actions, (uint32_t)protocol};
    load->aborts = aborts != 0;
    load->timeout = (unsigned)timeout;
    load->piece = (size_t)piece;
    parse_address(load, argv + optind, argc - optind);
    if (plan.total == 0)
        plan.total = plan.connections * plan.messages;
    return plan;
}

/* --------------------------------------------------------------------------------------- loop */

/* Notes what became of a connection that was just served. */
static void look_at(struct run *run, struct connection *c, enum phase before)
{
    if (c->idle && before != READY && !run->started && (c->phase == READY || c->phase == CLOSED))
        run->settled++;
    if (c->phase == CLOSED)
        --*(c->idle ? &run->idle : &run->open);
}

static void open_one(struct run *run, struct connection *c, uint64_t messages)
{
    ++*(messages ? &run->open : &run->idle);
    if (run->open > run->results.at_once)
        run->results.at_once = run->open;
    connection_open(c, run->load, &run->results, messages);
    look_at(run, c, NEGOTIATING);
}

/* Opens a connection for the next share of messages, if there are any left. */
static void open_next(struct run *run, struct connection *c)
{
    if (load_is_over(run->load))
        run->unclaimed = 0;
    while (run->unclaimed && c->phase == CLOSED) {
        const uint64_t messages = run->unclaimed < run->share ? run->unclaimed : run->share;
        run->unclaimed -= messages;
        open_one(run, c, messages);
    }
}

static void all_timed_out(struct run *run, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        struct connection *c = &run->connections[i];
        if (c->phase == CLOSED || c->phase == READY)
            continue;
        const enum phase before = c->phase;
        connection_timed_out(c, run->load, &run->results);
        look_at(run, c, before);
    }
}

/* Serves connections that can go on; those that end are opened anew for what is left to send. */
static void turn(struct run *run, uint64_t count)
{
    struct epoll_event events[EVENTS];
    const int ready = epoll_wait(run->load->epoll, events, EVENTS, (int)run->load->timeout * 1000);
    if (ready < 0 && errno != EINTR)
        fail("epoll_wait", strerror(errno));
    if (ready == 0)
        all_timed_out(run, count);
    for (int i = 0; i < ready; i++) {
        struct connection *c = events[i].data.ptr;
        const enum phase before = c->phase;
        connection_ready(c, run->load, &run->results);
        look_at(run, c, before);
        if (c->phase == CLOSED && !c->idle)
            open_next(run, c);
    }
}

/* Opens the idle connections, a few at a time. */
static void open_idle(struct run *run, uint64_t count)
{
    for (uint64_t opened = 0; run->settled < count;) {
        while (opened < count && opened - run->settled < IDLE_WINDOW)
            open_one(run, &run->connections[opened++], 0);
        if (run->settled < count)
            turn(run, opened);
    }
    run->started = true;
}

static void wait_for_end_of_stdin(void)
{
    char bytes[64];
    (void)puts("ready");
    (void)fflush(stdout);
    while (read(STDIN_FILENO, bytes, sizeof bytes) > 0)
        continue;
}

/* ------------------------------------------------------------------------------------- report */

/* `second` is the longest time but one. */
static void print_times(const char *name, const struct times *times)
{
    const double all = times->count ? (double)times->count : 1;
    (void)printf("\"%s\": {\"p50\": %.1f, \"p99\": %.1f, \"second\": %.1f, \"max\": %.1f}, ", name,
                 times_percentile(times, 0.5), times_percentile(times, 0.99),
                 times_percentile(times, (all - 1) / all), (double)times->max / 1000);
}

/* Seconds of CPU time that this program has used. */
static double own_cpu(void)
{
    struct timespec used;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

/* Begins to measure; what was noted before is forgotten, what was counted stays. */
static void measure_from_now(struct run *run)
{
    struct results *r = &run->results;
    r->message_times = r->reply_times = (struct times){0};
    r->gap = r->last_verdict = 0;
    run->since = (struct measured){times_now(), r->messages, own_cpu()};
}

/* `seconds`, the rate, the times and the CPU time of this program are those since measuring began;
 * CPU time near to the seconds says that this program is what was measured. */
static void report(const struct run *run)
{
    const struct results *r = &run->results;
    const double seconds = (double)(run->ended - run->since.at) / 1e9;
    const double measured = (double)(r->messages - run->since.messages);
    (void)printf("{\"messages\": %llu, \"seconds\": %.6f, \"messages_per_second\": %.1f, ",
                 (unsigned long long)r->messages, seconds, seconds > 0 ? measured / seconds : 0);
    print_times("message_us", &r->message_times);
    print_times("reply_us", &r->reply_times);
    (void)printf("\"gap_us\": %.1f, \"cpu_seconds\": %.6f, ", (double)r->gap / 1000,
                 own_cpu() - run->since.cpu);
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {
        {"connections", r->connections},
        {"at_once", r->at_once},
        {"served", r->served},
        {"packets_sent", r->packets_sent},
        {"packets_received", r->packets_received},
        {"bytes_sent", r->bytes_sent},
        {"bytes_received", r->bytes_received},
        {"octets", r->octets},
        {"changes", r->changes},
        {"version", r->asked.version},
        {"actions", r->asked.actions},
        {"protocol", r->asked.protocol},
        {"lost", r->lost},
        {"errors", r->errors},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        (void)printf("\"%s\": %llu, ", counts[i].name, (unsigned long long)counts[i].value);
    (void)printf("\"verdicts\": {");
    const char *comma = "";
    for (int reply = 0; reply < 128; reply++) {
        if (r->verdicts[reply] == 0)
            continue;
        (void)printf("%s\"%c\": %llu", comma, reply, (unsigned long long)r->verdicts[reply]);
        comma = ", ";
    }
    (void)printf("}}\n");
}

/* Sends the messages on all connections. */
static void send_all(struct run *run, struct plan *plan, uint64_t count)
{
    const uint64_t began = times_now();
    bool warm = plan->warm_up == 0;
    if (plan->duration)
        plan->load.until = began + plan->duration * 1000000;
    measure_from_now(run);
    for (uint64_t i = plan->idle; i < count; i++)
        open_next(run, &run->connections[i]);
    while (run->open) {
        turn(run, count);
        if (!warm && times_now() - began >= plan->warm_up * 1000000) {
            warm = true;
            measure_from_now(run);
        }
    }
    run->ended = times_now();
}

/* As many descriptors as the system lets us have. */
static void raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int argc, char **argv)
{
    static struct run run;   /* static: the histograms are large */
    static struct plan plan; /* static as well: it points to it */
    plan = parse(argc, argv);
    const uint64_t count = plan.idle + plan.connections;
    raise_limit();
    plan.load.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (plan.load.epoll < 0)
        fail("epoll_create1", strerror(errno));
    run.load = &plan.load;
    run.unclaimed = plan.total;
    run.share = plan.messages ? plan.messages : 1;
    run.connections = calloc(count ? (size_t)count : 1, sizeof *run.connections);
    if (!run.connections)
        fail("no memory for the connections", "");
    for (uint64_t i = 0; i < count; i++) {
        run.connections[i].number = (unsigned)i;
        run.connections[i].fd = -1;
        run.connections[i].phase = CLOSED;
    }

    open_idle(&run, plan.idle);
    if (plan.pause)
        wait_for_end_of_stdin();
    send_all(&run, &plan, count);
    for (uint64_t i = 0; i < plan.idle; i++)
        if (run.connections[i].phase == READY) {
            connection_quit(&run.connections[i], run.load, &run.results);
            look_at(&run, &run.connections[i], READY);
        }
    while (run.idle)
        turn(&run, count);

    run.results.lost += run.unclaimed;
    report(&run);
    free(run.connections);
    (void)close(plan.load.epoll);
    return run.results.errors || run.results.lost ? 1 : 0;
}
