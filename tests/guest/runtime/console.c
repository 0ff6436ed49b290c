/* Output of guest images: the debug console, a small printf, the line of a case. */
#include "guest.h"

#include <stdarg.h>

#define DEBUG_CONSOLE 0xe9
#define DEBUG_EXIT    0xf4

static void put(char c)
{
    outb(DEBUG_CONSOLE, (u8)c);
}

void *memcpy(void *to, const void *from, __SIZE_TYPE__ size);
void *memset(void *to, int value, __SIZE_TYPE__ size);

struct sink {
    char *at, *end; /* NULL: the console */
};

static void emit(struct sink *sink, char c)
{
    if (!sink->at)
        put(c);
    else if (sink->at < sink->end)
        *sink->at++ = c;
}

static void emit_number(struct sink *sink, u64 value, unsigned base, unsigned digits)
{
    char text[24];
    unsigned count = 0;

    do {
        /* no 64-bit division in 32-bit images: decimal numbers are words */
        unsigned digit = base == 16 ? value & 15 : (unsigned)((word)value % 10);

        text[count++] = "0123456789abcdef"[digit];
        value = base == 16 ? value >> 4 : (word)value / 10;
    } while (value || count < digits);
    while (count)
        emit(sink, text[--count]);
}

static void format(struct sink *sink, const char *text, va_list arguments)
{
    for (; *text; text++) {
        unsigned digits = 1;

        if (*text != '%') {
            emit(sink, *text);
            continue;
        }
        text++;
        if (*text >= '1' && *text <= '9')
            digits = (unsigned)(*text++ - '0');
        switch (*text) {
        case 'x':
            emit_number(sink, va_arg(arguments, word), 16, digits);
            break;
        case 'd':
            emit_number(sink, va_arg(arguments, word), 10, digits);
            break;
        case 'X':
            emit_number(sink, va_arg(arguments, u64), 16, digits);
            break;
        case 'c':
            emit(sink, (char)va_arg(arguments, int));
            break;
        case 's':
            for (const char *s = va_arg(arguments, const char *); *s; s++)
                emit(sink, *s);
            break;
        default:
            emit(sink, *text);
        }
    }
}

void say(const char *text, ...)
{
    struct sink sink = { 0 };
    va_list arguments;

    va_start(arguments, text);
    format(&sink, text, arguments);
    va_end(arguments);
}

const char *name_of(const char *text, ...)
{
    static char buffer[96];
    struct sink sink = { buffer, buffer + sizeof(buffer) - 1 };
    va_list arguments;

    va_start(arguments, text);
    format(&sink, text, arguments);
    va_end(arguments);
    *sink.at = 0;
    return buffer;
}

void begin(const char *name)
{
    say("case %s:", name);
}

int skipped(const char *name)
{
    const char *at = command_line;

    while (*at && !(at[0] == 's' && at[1] == 'k' && at[2] == 'i' && at[3] == 'p' && at[4] == '='))
        at++;
    while (*at && *at != ' ') {
        unsigned i = 0;

        at++; /* what stands before a name */
        if (*at == 'k' && at[3] == '=')
            at += 4;
        while (name[i] && at[i] == name[i])
            i++;
        if (!name[i] && (at[i] == ',' || at[i] == ' ' || !at[i])) {
            say("case %s: skipped", name);
            return 1;
        }
        while (*at && *at != ',' && *at != ' ')
            at++;
    }
    return 0;
}

void absent(const char *name, const char *what)
{
    say("case %s: n/a (%s)\n", name, what);
}

void finish(void)
{
    say("end\n");
    outb(DEBUG_EXIT, 0x10);
    for (;;)
        __asm__ volatile("cli; hlt");
}

const char *event_name(word vector)
{
    static const char *const names[] = {
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "v9",
        "#TS", "#NP", "#SS", "#GP", "#PF", "v15", "#MF", "#AC", "#MC", "#XM",
    };

    if (vector == VECTOR_DONE)
        return "ok";
    return vector < ARRAY_SIZE(names) ? names[vector] : "interrupt";
}

static int has_error(word vector)
{
    return vector == DBL || (vector >= TS && vector <= PG) || vector == ALIGN || vector == 21;
}

static void report_register(const char *name, word before, word after)
{
    if (before != after)
        say(" %s=%x", name, after);
}

static void report_registers(const struct regs *in, const struct regs *out)
{
    static const char *const names[] = {
        "ax", "cx", "dx", "bx", "", "bp", "si", "di", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    };
    const word *before = &in->rax, *after = &out->rax;

    for (unsigned i = 0; i < sizeof(word) * 2; i++)
        if (i != 4 && !(in->hide >> i & 1))
            report_register(names[i], before[i], after[i]);
    if (in->rsp != out->rsp && !(in->hide >> 4 & 1)) {
        word up = out->rsp - in->rsp, down = in->rsp - out->rsp;

        if (up < 65536 || down < 65536)
            say(" sp%c%x", down < up ? '-' : '+', down < up ? down : up);
        else
            say(" sp=%x", out->rsp);
    }
}

static void report_flags(const struct regs *in, const struct regs *out)
{
    static const struct {
        word bit;
        const char *name;
    } flags[] = {
        { CF, "CF" }, { PF, "PF" }, { AF, "AF" }, { ZF, "ZF" },         { SF, "SF" },         { TF, "TF" },
        { IF, "IF" }, { DF, "DF" }, { OF, "OF" }, { 1 << 12, "IOPL0" }, { 1 << 13, "IOPL1" }, { NT, "NT" },
        { RF, "RF" }, { VM, "VM" }, { AC, "AC" }, { 1 << 19, "VIF" },   { 1 << 20, "VIP" },   { ID, "ID" },
    };
    /* RF of a fault is a case of its own, not a word in every line */
    word changed = in->rflags ^ out->rflags, system = changed & ~(word)(STATUS | RF);

    for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
        if (in->show & flags[i].bit)
            say(" %s=%d", flags[i].name, (word) !!(out->rflags & flags[i].bit));
        else if (system & flags[i].bit)
            say(" %s:%d", flags[i].name, (word) !!(out->rflags & flags[i].bit));
    }
}

/* The position of the probe, or an address. */
static void report_rip(const struct regs *in, const struct regs *out)
{
    word offset = out->rip - in->rip;

    if (out->cs != in->cs)
        say(" cs=%x", out->cs);
    if (offset < 2 * PAGE)
        say(" ip+%x", offset);
    else
        say(" ip=%x", out->rip);
}

void report(const char *name, const struct regs *in, const struct regs *out)
{
    begin(name);
    say(" %s", event_name(out->vector));
    if (out->vector == VECTOR_DONE) {
        if (out->cs != in->cs)
            say(" cs=%x", out->cs);
    } else {
        if (out->vector > XM)
            say(" %x", out->vector);
        if (has_error(out->vector))
            say("(%x)", out->error);
        if (out->vector == PG)
            say(" cr2=%x", out->cr2);
        report_rip(in, out);
    }
    if (out->ss != in->ss)
        say(" ss=%x", out->ss);
    report_registers(in, out);
    report_flags(in, out);
}

/* An event outside a probe: the image is wrong, or the processor is. */
void unexpected_event(const struct regs *out);
void (*on_unexpected_event)(void);
void unexpected_event(const struct regs *out)
{
    if (on_unexpected_event)
        on_unexpected_event();
    say("\nunexpected %s %x(%x) at %x:%x, cr2 %x, sp %x\n", event_name(out->vector), out->vector, out->error, out->cs,
        out->rip, out->cr2, out->rsp);
    outb(DEBUG_EXIT, 0x11);
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* ---- What the compiler may call ---- */

void *memcpy(void *to, const void *from, __SIZE_TYPE__ size)
{
    for (__SIZE_TYPE__ i = 0; i < size; i++)
        ((volatile u8 *)to)[i] = ((const u8 *)from)[i];
    return to;
}

void *memset(void *to, int value, __SIZE_TYPE__ size)
{
    for (__SIZE_TYPE__ i = 0; i < size; i++)
        ((volatile u8 *)to)[i] = (u8)value;
    return to;
}
