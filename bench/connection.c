/* One connection: sends what may be sent without waiting in one write, checks every reply, and
 * goes on as the reply says. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "connection.h"

enum { ERRORS_PRINTED = 10 };

static const uint8_t quit_packet[] = {0, 0, 0, 1, MKIT_C_QUIT};
static const uint8_t abort_packet[] = {0, 0, 0, 1, MKIT_C_ABORT};

static void closed(struct connection *c)
{
    if (c->fd >= 0)
        (void)close(c->fd);
    free(c->in);
    c->in = NULL;
    c->in_len = c->in_size = 0;
    c->fd = -1;
    c->phase = CLOSED;
}

__attribute__((format(printf, 3, 4))) static void
failed(struct connection *c, struct results *results, const char *format, ...)
{
    if (results->errors++ < ERRORS_PRINTED) {
        va_list args;
        va_start(args, format);
        (void)fprintf(stderr, "load: connection %u: ", c->number);
        (void)vfprintf(stderr, format, args);
        (void)fputc('\n', stderr);
        va_end(args);
    }
    results->lost += c->messages_left;
    c->messages_left = 0;
    closed(c);
}

bool load_is_over(const struct load *load)
{
    return load->until && times_now() >= load->until;
}

/* What the connection waits for, for error texts. */
static const char *waiting_for(const struct connection *c)
{
    static char text[64];
    if (c->phase == NEGOTIATING)
        return "the reply to OPTNEG (O)";
    if (c->phase == QUITTING)
        return "the end after QUIT (Q)";
    if (!c->awaiting)
        return "nothing";
    const uint8_t command = c->script->steps[c->step].command;
    (void)snprintf(text, sizeof text, "the reply to %s (%c)",
                   mkit_packet_kind(MKIT_TO_FILTER, command)->name, command);
    return text;
}

void connection_timed_out(struct connection *c, const struct load *load, struct results *results)
{
    failed(c, results, "no answer for %u seconds, waiting for %s", load->timeout, waiting_for(c));
}

/* ------------------------------------------------------------------------------------ sending */

static void send_bytes(struct connection *c, struct results *results, const uint8_t *bytes,
                       size_t len, unsigned packets)
{
    c->out = bytes;
    c->out_len = len;
    results->packets_sent += packets;
    results->bytes_sent += len;
}

static void quit(struct connection *c, struct results *results)
{
    c->phase = QUITTING;
    c->awaiting = false;
    send_bytes(c, results, quit_packet, sizeof quit_packet, 1);
}

static void start_message(struct connection *c)
{
    c->phase = MESSAGE;
    c->script = &c->scripts->message;
    c->step = 0;
    c->refused = 0;
    c->message_began = times_now();
}

/* Sends from the current step on, up to and with the next one that is answered. */
static void send_group(struct connection *c, struct results *results)
{
    const struct script *script = c->script;
    const size_t begin = script->steps[c->step].begin;
    unsigned packets = 0;
    size_t at = c->step;
    while (at < script->count) {
        packets += script->steps[at].packets;
        if (script->steps[at].reply)
            break;
        at++;
    }
    c->step = at;
    c->awaiting = at < script->count;
    const size_t end = c->awaiting ? script->steps[at].end : script->len;
    c->answer = (struct answer){0};
    c->group_began = times_now();
    send_bytes(c, results, script->bytes + begin, end - begin, packets);
}

/* Decides what comes next now that all is written and no reply is awaited. Returns whether there
 * is something to write. */
static bool go_on(struct connection *c, const struct load *load, struct results *results)
{
    if (c->phase == GREETING && c->step >= c->script->count) {
        c->phase = READY;
        if (c->idle)
            return false;
        start_message(c);
    } else if (c->phase == MESSAGE && c->step >= c->script->count) {
        if (c->messages_left == 0 || load_is_over(load)) {
            quit(c, results);
            return true;
        }
        start_message(c);
    } else if (c->phase != GREETING && c->phase != MESSAGE) {
        return false;
    }
    send_group(c, results);
    return true;
}

static void poll_for_output(struct connection *c, const struct load *load, bool wanted)
{
    if (c->polling_out == wanted)
        return;
    c->polling_out = wanted;
    struct epoll_event event = {.events = wanted ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
    (void)epoll_ctl(load->epoll, EPOLL_CTL_MOD, c->fd, &event);
}

/* Writes what waits, and what follows it as far as no reply is awaited. */
static void write_out(struct connection *c, const struct load *load, struct results *results)
{
    while (c->phase != CLOSED) {
        if (c->out_len == 0 && (c->awaiting || !go_on(c, load, results)))
            break;
        const size_t len = c->out_len < load->piece ? c->out_len : load->piece;
        const ssize_t sent = send(c->fd, c->out, len, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (sent < 0) {
            failed(c, results, "cannot write: %s", strerror(errno));
            return;
        }
        c->out += sent;
        c->out_len -= (size_t)sent;
    }
    /* MTAs close after QUIT, and some filters wait for that. Only our half of the connection is
     * closed, so that the end is still the filter's: all its work for the connection is done. */
    if (c->phase == QUITTING && c->out_len == 0)
        (void)shutdown(c->fd, SHUT_WR);
    if (c->phase != CLOSED)
        poll_for_output(c, load, c->out_len > 0);
}

/* ------------------------------------------------------------------------------------ replies */

static void end_message(struct connection *c, const struct load *load, struct results *results,
                        uint8_t verdict)
{
    results->messages++;
    results->verdicts[verdict & 127]++;
    const uint64_t now = times_now();
    times_add(&results->message_times, now - c->message_began);
    if (results->last_verdict && now - results->last_verdict > results->gap)
        results->gap = now - results->last_verdict;
    results->last_verdict = now;
    if (!c->served && !load_is_over(load)) {
        c->served = true;
        results->served++;
    }
    c->messages_left--;
    c->step = c->script->count;
}

/* The filter has decided about the whole connection: its messages pass without it. */
static void end_greeting(struct connection *c, struct results *results, uint8_t verdict)
{
    results->messages += c->messages_left;
    results->verdicts[verdict & 127] += c->messages_left;
    c->messages_left = 0;
    quit(c, results);
}

/* A recipient was refused: the others go on, if there are any. */
static void refuse_recipient(struct connection *c, const struct load *load, struct results *results,
                             uint8_t verdict)
{
    if (++c->refused < load->mail.recipients) {
        c->step++;
        return;
    }
    end_message(c, load, results, verdict);
    send_bytes(c, results, abort_packet, sizeof abort_packet, 1);
}

static void take_final(struct connection *c, const struct load *load, struct results *results,
                       uint8_t reply)
{
    const uint8_t command = c->script->steps[c->step].command;
    times_add(&results->reply_times, times_now() - c->group_began);
    c->awaiting = false;
    const bool refusal =
        reply == MKIT_R_REJECT || reply == MKIT_R_TEMPFAIL || reply == MKIT_R_REPLYCODE;
    if (command == MKIT_C_BODYEOB) {
        results->octets += c->scripts->octets;
        end_message(c, load, results, reply);
        if (load->aborts)
            send_bytes(c, results, abort_packet, sizeof abort_packet, 1);
    } else if (reply == MKIT_R_CONTINUE) {
        c->step++;
    } else if (reply == MKIT_R_SKIP) {
        c->step = script_skip(c->script, c->step);
    } else if (c->phase == GREETING) {
        end_greeting(c, results, reply);
    } else if (command == MKIT_C_RCPT && refusal) {
        refuse_recipient(c, load, results, reply);
    } else {
        end_message(c, load, results, reply);
    }
}

static void take_negotiation(struct connection *c, const struct load *load, struct results *results,
                             const struct mkit_packet *packet)
{
    const char *why = check_negotiation(packet, &load->offered, &c->asked);
    if (why) {
        failed(c, results, "the reply to OPTNEG (O): %s", why);
        return;
    }
    results->asked = c->asked;
    c->scripts = scripts_for(&load->mail, c->asked.version, c->asked.protocol);
    c->script = &c->scripts->greeting;
    c->step = 0;
    c->awaiting = false;
    c->phase = GREETING;
}

static void take_packet(struct connection *c, const struct load *load, struct results *results,
                        const struct mkit_packet *packet)
{
    const struct mkit_packet_kind *kind = mkit_packet_kind(MKIT_TO_MTA, packet->command);
    const char *name = kind ? kind->name : "a packet that does not exist";
    results->packets_received++;
    if (c->out_len || (c->phase != NEGOTIATING && !c->awaiting)) {
        failed(c, results, "%s (%c) came before it was asked for, waiting for %s", name,
               packet->command, c->out_len ? "the end of a write" : waiting_for(c));
        return;
    }
    if (c->phase == NEGOTIATING) {
        take_negotiation(c, load, results, packet);
        return;
    }
    const char *why;
    switch (check_reply(packet, c->script->steps[c->step].command, &c->asked, &c->answer, &why)) {
    case REPLY_WRONG:
        failed(c, results, "%s (%c) as %s: %s", name, packet->command, waiting_for(c), why);
        break;
    case REPLY_FINAL: take_final(c, load, results, packet->command); break;
    case REPLY_CHANGE: results->changes++; break;
    case REPLY_PROGRESS: break;
    }
}

/* Serves all whole packets that have come. */
static void take_packets(struct connection *c, const struct load *load, struct results *results)
{
    size_t used = 0;
    while (c->phase != CLOSED) {
        struct mkit_packet packet;
        const ssize_t len =
            mkit_frame_read(c->in + used, c->in_len - used, MKIT_MAX_SEND, &packet, NULL);
        if (len == 0)
            break;
        if (len < 0) {
            failed(c, results, "a packet of impossible length came, waiting for %s",
                   waiting_for(c));
            return;
        }
        used += (size_t)len;
        take_packet(c, load, results, &packet);
    }
    if (c->phase == CLOSED || used == 0)
        return;
    c->in_len -= used;
    memmove(c->in, c->in + used, c->in_len);
}

static void end_of_input(struct connection *c, struct results *results)
{
    if (c->in_len)
        failed(c, results, "closed by the filter inside a packet");
    else if (c->phase != QUITTING)
        failed(c, results, "closed by the filter, waiting for %s", waiting_for(c));
    else
        closed(c);
}

static void read_in(struct connection *c, const struct load *load, struct results *results)
{
    if (c->in_len == c->in_size) {
        const size_t size = c->in_size ? c->in_size * 2 : 256;
        uint8_t *in = realloc(c->in, size);
        if (!in) {
            failed(c, results, "no memory");
            return;
        }
        c->in = in;
        c->in_size = size;
    }
    const ssize_t got = recv(c->fd, c->in + c->in_len, c->in_size - c->in_len, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got < 0) {
        failed(c, results, "cannot read, waiting for %s: %s", waiting_for(c), strerror(errno));
    } else if (got == 0) {
        end_of_input(c, results);
    } else {
        results->bytes_received += (uint64_t)got;
        c->in_len += (size_t)got;
        take_packets(c, load, results);
    }
}

/* --------------------------------------------------------------------------------------- life */

/* Connects, waiting for the filter to accept if its backlog is full. Returns 0 or -1. */
static int connect_to(struct connection *c, const struct load *load)
{
    const struct sockaddr *address = (const struct sockaddr *)&load->address;
    const struct timeval bound = {.tv_sec = load->timeout};
    c->fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return -1;
    if (setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof bound) ||
        connect(c->fd, address, load->address_len) ||
        fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK))
        return -1;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    return epoll_ctl(load->epoll, EPOLL_CTL_ADD, c->fd, &event);
}

void connection_open(struct connection *c, const struct load *load, struct results *results,
                     uint64_t messages)
{
    static uint8_t optneg[MKIT_HEADER_LEN + MKIT_OPTNEG_LEN];
    const struct mkit_field fields[] = {{.number = load->offered.version},
                                        {.number = load->offered.actions},
                                        {.number = load->offered.protocol}};
    *c = (struct connection){
        .number = c->number, .fd = -1, .idle = messages == 0, .messages_left = messages};
    if (connect_to(c, load)) {
        failed(c, results, "cannot connect: %s", strerror(errno));
        return;
    }
    results->connections++;
    (void)mkit_encode(MKIT_TO_FILTER, MKIT_C_OPTNEG, fields, 3, optneg, sizeof optneg);
    c->phase = NEGOTIATING;
    send_bytes(c, results, optneg, sizeof optneg, 1);
    write_out(c, load, results);
}

void connection_ready(struct connection *c, const struct load *load, struct results *results)
{
    read_in(c, load, results);
    if (c->phase != CLOSED)
        write_out(c, load, results);
}

void connection_quit(struct connection *c, const struct load *load, struct results *results)
{
    quit(c, results);
    write_out(c, load, results);
}
