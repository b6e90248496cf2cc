/* Retries of several clients: R2, R3 and R8 over one block, and R8 with R9 over power cuts.
 *
 * MEMBERS replicas, an authority, and two clients with one change open each: 0 writes the values 1 and 3, 1 writes 2. A client
 * sends its change to any replica at any time, and again as often as it likes; an answer may be lost. What a replica knows of
 * ids is as in applied_ids.h: unknown, perhaps applied, applied, and which was noted before which; a piece of a change is the
 * whole block. Somebody reads at any time; the answers to reads and changes have to have one order.
 *
 * What membership.pml searches is taken for granted here: a proposal and its outcome are one step, so are a read and its
 * confirmations, a rejoin, and storing a number; each region is active.
 *
 * Bounds: MEMBERS (2 or 3); NUMBERS, the greatest; WRITES (2 or 3); DEATHS: a process dies and comes back in the same boot;
 * CUTS: one comes back in another boot, without its ids and with what was durable; DURABLE: changes are durable before they
 * are answered. RESENT: after all have lost their ids, sessions go on once each client has sent again what it has open,
 * instead of ending with an error. Each other NO_... takes out a rule, or a part of one.
 */
#ifndef MEMBERS
#define MEMBERS 2
#endif
#ifndef NUMBERS
#define NUMBERS 3
#endif
#ifndef WRITES
#define WRITES 2
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef CUTS
#define CUTS 0
#endif

#define BIT(m) (1 << (m))
#define ALL (BIT(MEMBERS) - 1)
#define HAS(set, m) (((set) >> (m)) & 1)
#define WITHOUT(set, m) ((set) & (255 - BIT(m)))
#define WITHIN(set, other) (((set) & (255 - (other))) == 0)

/* Role */
#define kOut 0
#define kSecondary 1
#define kProbing 2
#define kPreparing 3
#define kServing 4

/* What a replica knows of an id. */
#define kUnknown 0
#define kPerhaps 1
#define kApplied 2

/* The authority: its number, and the record of each number. */
byte newest = 1;
byte record_members[NUMBERS + 1];
byte record_primary[NUMBERS + 1];

/* The superblock, the disk and the table of ids. */
byte number[MEMBERS];
byte content[MEMBERS];
byte in_sync = ALL;
#define ID(m, v) ((m) * (WRITES + 1) + (v))
byte id[MEMBERS * (WRITES + 1)];
byte before[MEMBERS * (WRITES + 1)]; /* a set of values: what was noted before this one */
#if CUTS && !defined(DURABLE)
byte durable[MEMBERS];
#define MAKE_DURABLE(m) durable[m] = content[m]
#else
#define MAKE_DURABLE(m) skip
#endif

/* The process. A primary has an operation per client, as far as range locks let it. */
#define CLIENTS 2
#define AT(m, c) ((m) * CLIENTS + (c))
byte up = ALL;
byte role[MEMBERS];
byte op[MEMBERS * CLIENTS], op_has[MEMBERS * CLIENTS];
byte mark_only = 0; /* operations of ids that are applied here */
byte ready[MEMBERS];
byte to_copy[MEMBERS];           /* members to which the region is to be copied (R7) */
byte sent[MEMBERS * CLIENTS];    /* what a client has sent on its session with m, and m has not taken yet */

/* Clients: what is open, and what they have begun. */
byte open[CLIENTS];
byte begun[CLIENTS];
#if CUTS
byte loss_takeover = 0; /* preparing under one's own loss number (R9) */
byte last_loss = 0;
byte untold = 0;       /* clients whose session is older than the newest loss */
byte doubtful = 0;     /* values that the newest loss may have taken, until an answer says which one is left */
byte gone = 0;         /* values that a loss took */
#endif

/* One order of all answers: the clusters (a value's write and its reads) of which something has ended, and for each what
   ended before something of it began. Two that precede each other have no place in one order; no more is needed for a
   register whose writes differ (Gibbons and Korach). */
byte ended = 1;
byte earlier[WRITES + 1];

byte deaths = 0, cuts = 0;
byte i = 0; /* zero between steps */

#define MEMBERS_OF(m) record_members[number[m]]
#define PRIMARY_OF(m) record_primary[number[m]]
#define RUNS(m) (HAS(up, m) && role[m] >= kPreparing)
#define SERVES(m) (HAS(up, m) && role[m] == kServing)
#define OTHER_CLIENT(c) (1 - (c))
#define WRITER(v) (1 - ((v) & 1))
#define NEXT_VALUE(c) ((c) + 1 + 2 * begun[c])
#if WRITES == 2
#define MAY_BEGIN(c) ((c) == 0 || begun[0] > 0) /* they are alike */
#else
#define MAY_BEGIN(c) true
#endif

#ifdef NO_BOOT_CHECK
#define IN_SYNC(m) true
#else
#define IN_SYNC(m) HAS(in_sync, m)
#endif
/* R1: what a member takes from a primary. */
#define TAKES(s, m) (HAS(up, s) && role[s] == kSecondary && number[s] == number[m] && PRIMARY_OF(s) == m && HAS(MEMBERS_OF(m), s) && IN_SYNC(s))
#define CONFIRMS(s, m) ((s) == m || !HAS(MEMBERS_OF(m), s) || TAKES(s, m))
#if MEMBERS == 3
#define ALL_CONFIRM(m) (CONFIRMS(0, m) && CONFIRMS(1, m) && CONFIRMS(2, m))
#else
#define ALL_CONFIRM(m) (CONFIRMS(0, m) && CONFIRMS(1, m))
#endif

/* R2 */
#ifdef NO_ACK_ALL
#define ACKNOWLEDGED(m, c) HAS(op_has[AT(m, c)], m)
#else
#define ACKNOWLEDGED(m, c) WITHIN(MEMBERS_OF(m), op_has[AT(m, c)])
#endif
/* R3 */
#ifdef NO_RANGE_LOCK
#define FREE(m) true
#else
#define FREE(m) (op[AT(m, 0)] == 0 && op[AT(m, 1)] == 0)
#endif
#define COPIED(m) ((to_copy[m] & MEMBERS_OF(m)) == 0)

/* R8: an id that is applied is answered and no more. */
#ifdef NO_IDS
#define APPLIED(m, v) false
#else
#define APPLIED(m, v) (id[ID(m, v)] == kApplied)
#endif
/* R8: what is perhaps applied waits for what was noted later and is perhaps applied too: that comes again first. */
#ifdef NO_DOUBTS_IN_ORDER
#define WAITS(m, v) false
#else
#define LATER(m, v, w) ((w) <= WRITES && id[ID(m, w)] == kPerhaps && HAS(before[ID(m, w)], v))
#if WRITES == 3
#define WAITS(m, v) (id[ID(m, v)] == kPerhaps && (LATER(m, v, 1) || LATER(m, v, 2) || LATER(m, v, 3)))
#else
#define WAITS(m, v) (id[ID(m, v)] == kPerhaps && (LATER(m, v, 1) || LATER(m, v, 2)))
#endif
#endif

#if CUTS
#if defined(RESENT)
#define SENT_AGAIN(m, c) (open[c] == 0 || sent[AT(m, c)] == open[c])
#endif
#define COUNTS(s, m) (IN_SYNC(s) || HAS(loss_takeover, m))
#define KNOWS_LOSS(m) (number[m] >= last_loss)
#define SESSION(m, c) (!HAS(untold, c) || !KNOWS_LOSS(m))
#ifdef DURABLE
#define COUNTED(c) true
#else
#define COUNTED(c) (!HAS(untold, c))
#endif
#define SOMEBODY_READS (untold != 3)
#else
#define COUNTS(s, m) true
#define SESSION(m, c) true
#define COUNTED(c) true
#define SOMEBODY_READS true
#endif

/* The id leaves the table of m. */
inline forget(m, v) {
    id[ID(m, v)] = kUnknown; before[ID(m, v)] = 0;
    i = 1;
    do :: i <= WRITES -> before[ID(m, i)] = WITHOUT(before[ID(m, i)], v); i++ :: else -> break od;
    i = 0
}

/* v gets the last place in the order of what m knows; a client's next change takes the place of what was answered to it. */
inline put_last(m, v) {
    if :: v == 3 -> forget(m, 1) :: else fi;
    before[ID(m, v)] = 0;
    i = 1;
    do
    :: i <= WRITES ->
        if
        :: i != v && id[ID(m, i)] != kUnknown ->
            before[ID(m, v)] = before[ID(m, v)] | BIT(i);
            before[ID(m, i)] = WITHOUT(before[ID(m, i)], v)
        :: else
        fi;
        i++
    :: else -> break
    od;
    i = 0
}

inline note_perhaps(m, v) {
    if :: id[ID(m, v)] == kUnknown -> put_last(m, v) :: else fi;
    id[ID(m, v)] = kPerhaps
}

/* AppliedIds::overwritten(): nothing is left to be written of what was noted before v. */
inline overwritten(m, v) {
#ifndef NO_OVERWRITTEN
    i = 1;
    do
    :: i <= WRITES ->
        if :: id[ID(m, i)] == kPerhaps && HAS(before[ID(m, v)], i) -> id[ID(m, i)] = kApplied :: else fi;
        i++
    :: else -> break
    od;
    i = 0
#else
    skip
#endif
}

inline note_applied(m, v) {
    if :: id[ID(m, v)] == kUnknown -> put_last(m, v) :: else fi;
    id[ID(m, v)] = kApplied
}

inline apply(m, v) {
    content[m] = v;
    note_applied(m, v);
    overwritten(m, v)
}

/* AppliedIds::agree(): s takes part in the take-over by m. What not both have applied is perhaps applied. */
inline agree(m, s) {
#ifndef NO_IDS_AGREE
    i = 1;
    do
    :: i <= WRITES ->
        id[ID(s, i)] = (id[ID(s, i)] == kApplied && id[ID(m, i)] != kApplied -> kPerhaps :
                       (id[ID(s, i)] == kUnknown && id[ID(m, i)] != kUnknown -> kPerhaps : id[ID(s, i)]));
        i++
    :: else -> break
    od;
    /* In the order of m; what m does not know comes before all that it knows. */
    i = 1;
    do
    :: i <= WRITES -> before[ID(s, i)] = (id[ID(m, i)] != kUnknown -> before[ID(m, i)] : before[ID(s, i)]); i++
    :: else -> break
    od;
    i = 1;
    do
    :: i <= WRITES && id[ID(m, i)] == kUnknown && id[ID(s, i)] != kUnknown -> put_first(m, s, i); i++
    :: i <= WRITES && (id[ID(m, i)] != kUnknown || id[ID(s, i)] == kUnknown) -> i++
    :: else -> break
    od;
    i = 0
#else
    skip
#endif
}

/* Of agree(): m does not know v, s does. */
inline put_first(m, s, v) {
    before[ID(s, 1)] = (id[ID(m, 1)] != kUnknown -> before[ID(s, 1)] | BIT(v) : before[ID(s, 1)]);
    before[ID(s, 2)] = (id[ID(m, 2)] != kUnknown -> before[ID(s, 2)] | BIT(v) : before[ID(s, 2)]);
#if WRITES == 3
    before[ID(s, 3)] = (id[ID(m, 3)] != kUnknown -> before[ID(s, 3)] | BIT(v) : before[ID(s, 3)]);
#endif
    before[ID(s, v)] = before[ID(s, v)] & ((id[ID(m, 1)] == kUnknown -> BIT(1) : 0) | (id[ID(m, 2)] == kUnknown -> BIT(2) : 0))
}

/* AppliedIds::join() into an empty table. */
inline join_ids(m, s) {
    i = 1;
    do
    :: i <= WRITES ->
#ifdef NO_JOIN_IDS
        id[ID(s, i)] = kUnknown; before[ID(s, i)] = 0;
#else
        id[ID(s, i)] = id[ID(m, i)]; before[ID(s, i)] = before[ID(m, i)];
#endif
        i++
    :: else -> break
    od;
    i = 0
}

inline forget_all(m) {
    i = 1;
    do :: i <= WRITES -> id[ID(m, i)] = kUnknown; before[ID(m, i)] = 0; i++ :: else -> break od;
    i = 0
}

inline close_sessions(m) {
#ifndef NO_SESSION_CLOSED
    sent[AT(m, 0)] = 0; sent[AT(m, 1)] = 0
#else
    skip
#endif
}

/* Node::leave_primary() */
inline leave_primary(m) {
    op[AT(m, 0)] = 0; op[AT(m, 1)] = 0; op_has[AT(m, 0)] = 0; op_has[AT(m, 1)] = 0;
    mark_only = mark_only & (255 - 3 * BIT(AT(m, 0)));
    ready[m] = 0; to_copy[m] = 0
}

inline take_over(m) {
    leave_primary(m);
    ready[m] = BIT(m);
    role[m] = (IN_SYNC(m) -> kPreparing : kProbing)
}

/* m has stored the record of the number n. */
inline adopt(m, n) {
    number[m] = n;
    if
    :: !HAS(record_members[n], m) -> leave_primary(m); close_sessions(m); role[m] = kOut; in_sync = WITHOUT(in_sync, m)
    :: HAS(record_members[n], m) && record_primary[n] != m -> leave_primary(m); close_sessions(m); role[m] = kSecondary
    :: HAS(record_members[n], m) && record_primary[n] == m && role[m] != kServing -> take_over(m); close_sessions(m)
    :: else -> /* goes on serving; acknowledgements counted under the old number (R2) */
        op_has[AT(m, 0)] = op_has[AT(m, 0)] & BIT(m); op_has[AT(m, 1)] = op_has[AT(m, 1)] & BIT(m)
    fi
}

inline propose(members, primary) {
    newest++;
    record_members[newest] = members; record_primary[newest] = primary
}

/* The process of m ends; its ids are in a mapped file. */
inline end_process(m) {
    up = WITHOUT(up, m); leave_primary(m); role[m] = kOut;
    sent[AT(m, 0)] = 0; sent[AT(m, 1)] = 0
}

inline die(m) {
    deaths++;
    end_process(m);
#ifdef NO_TABLE_KEPT
    forget_all(m)
#endif
}

inline begin_write(c) {
    open[c] = NEXT_VALUE(c);
    begun[c]++;
    earlier[open[c]] = ended
}

/* R9: the first answer after a loss shows what is left; all else that was there may not come back. */
inline settle_loss(v) {
#if CUTS
    gone = gone | WITHOUT(doubtful, v); doubtful = 0
#else
    skip
#endif
}

inline answer_write(c, v) {
    if
    :: open[c] == v && COUNTED(c) -> open[c] = 0; ended = ended | BIT(v); settle_loss(v)
    :: open[c] == v && !COUNTED(c) -> open[c] = 0 /* in a session that ends: it may be lost */
    :: else
    fi
}

inline answer_read(v) {
#if CUTS
    assert(!HAS(gone, v)); /* what a loss took comes back */
#endif
    settle_loss(v);
    i = 0;
    do
    :: i <= WRITES ->
        if
        :: i != v && HAS(ended, i) ->
            assert(!HAS(earlier[i], v)); /* no one order explains the answers */
            earlier[v] = earlier[v] | BIT(i)
        :: else
        fi;
        i++
    :: else -> break
    od;
    i = 0;
    ended = ended | BIT(v)
}

inline check_members_equal(m) {
    i = 0;
    do
    :: i < MEMBERS ->
        assert(!HAS(MEMBERS_OF(m) & in_sync, i) || number[i] != number[m] || content[i] == content[m]); /* members differ after an answer */
        i++
    :: else -> break
    od;
    i = 0
}

#if CUTS
/* R9: m goes on from its own disk. Without DURABLE what was answered may be gone, and one order begins anew; sessions of before
   end with an error, and what they have sent is dropped. */
inline accept_loss(m) {
    last_loss = number[m];
#ifndef NO_TABLE_LOSS
    untold = 3;
#endif
#ifndef DURABLE
    doubtful = (1 | ((BIT(NEXT_VALUE(0)) - 1) & 10) | ((BIT(NEXT_VALUE(1)) - 1) & 4)) & (255 - gone); /* all that has been begun */
    ended = 0;
    i = 0;
    do :: i <= WRITES -> earlier[i] = 0; i++ :: else -> break od;
    i = 0
#endif
}
#endif

/* A client's change at a primary m. */
proctype Request(byte m; byte c) {
end:
    do
    :: d_step { SERVES(m) && COPIED(m) && FREE(m) && sent[AT(m, c)] != 0 && op[AT(m, c)] == 0 && SESSION(m, c) && !WAITS(m, sent[AT(m, c)]) ->
        printf("%d takes the write of %d\n", m, sent[AT(m, c)]);
        op[AT(m, c)] = sent[AT(m, c)]; sent[AT(m, c)] = 0; op_has[AT(m, c)] = 0;
        if
        :: APPLIED(m, op[AT(m, c)]) ->
            printf("%d knows that it has it\n", m);
            mark_only = mark_only | BIT(AT(m, c)); op_has[AT(m, c)] = BIT(m)
        :: else ->
#ifndef NO_NOTED_FIRST
            note_perhaps(m, op[AT(m, c)])
#endif
        fi }
    :: atomic { SERVES(m) && op[AT(m, c)] != 0 && !HAS(op_has[AT(m, c)], m) ->
        if
        :: d_step { printf("%d: its disk has %d\n", m, op[AT(m, c)]); apply(m, op[AT(m, c)]); op_has[AT(m, c)] = op_has[AT(m, c)] | BIT(m) }
#if DEATHS
        :: d_step { deaths < DEATHS -> printf("%d dies: its disk has %d, and nothing is noted\n", m, op[AT(m, c)]); content[m] = op[AT(m, c)]; die(m) }
#endif
        fi }
    :: atomic { SERVES(m) && op[AT(m, c)] != 0 && ACKNOWLEDGED(m, c) ->
        if
        :: d_step { printf("%d answers the write of %d\n", m, op[AT(m, c)]); answer_write(c, op[AT(m, c)]) }
        :: printf("%d: the answer to the write of %d is lost\n", m, op[AT(m, c)])
        fi;
        d_step {
            op[AT(m, c)] = 0; op_has[AT(m, c)] = 0; mark_only = WITHOUT(mark_only, AT(m, c));
#ifndef NO_ACK_ALL
            if :: op[AT(m, OTHER_CLIENT(c))] == 0 -> check_members_equal(m) :: else fi
#endif
        } }
    od
}

/* Its copy to a member s. */
proctype Replicate(byte m; byte s; byte c) {
end:
    do
    :: atomic { SERVES(m) && TAKES(s, m) && op[AT(m, c)] != 0 && !HAS(op_has[AT(m, c)], s) ->
        if
        :: d_step {
            if
            :: HAS(mark_only, AT(m, c)) ->
                printf("%d notes that it has %d\n", s, op[AT(m, c)]);
                note_applied(s, op[AT(m, c)]);
#ifndef NO_MARK_OVERWRITES
                overwritten(s, op[AT(m, c)])
#endif
            :: else -> printf("%d applies %d\n", s, op[AT(m, c)]); apply(s, op[AT(m, c)])
            fi;
            op_has[AT(m, c)] = op_has[AT(m, c)] | BIT(s) }
#if DEATHS
        :: d_step { deaths < DEATHS && !HAS(mark_only, AT(m, c)) ->
            printf("%d dies: its disk has %d, and nothing is noted\n", s, op[AT(m, c)]);
#ifndef NO_NOTED_FIRST
            note_perhaps(s, op[AT(m, c)]);
#endif
            content[s] = op[AT(m, c)];
            die(s) }
#endif
        fi }
    od
}

proctype Node(byte m) {
end:
    do
    /* ---- reads */
    :: d_step { SERVES(m) && COPIED(m) && FREE(m) && ALL_CONFIRM(m) && SOMEBODY_READS ->
        printf("somebody reads at %d: %d\n", m, content[m]);
        answer_read(content[m]) }

    /* ---- R6, R9: proposals and their outcome */
    :: d_step { HAS(up, m) && role[m] == kSecondary && IN_SYNC(m) && number[m] == newest && newest < NUMBERS ->
        propose(WITHOUT(MEMBERS_OF(m), PRIMARY_OF(m)), m);
        printf("%d fails over: %d is {members %d, primary %d}\n", m, newest, record_members[newest], m);
        adopt(m, newest) }
    :: d_step { HAS(up, m) && newest > number[m] && (!HAS(record_members[newest], m) || record_primary[newest] == m) ->
        printf("%d learns %d\n", m, newest);
        adopt(m, newest) }
    :: d_step { HAS(up, m) && role[m] == kPreparing && WITHIN(MEMBERS_OF(m), ready[m]) ->
        printf("%d serves\n", m);
        role[m] = kServing;
        to_copy[m] = WITHOUT(MEMBERS_OF(m), m); ready[m] = 0
#if CUTS
        ; loss_takeover = WITHOUT(loss_takeover, m)
#endif
        }
#if CUTS
    :: d_step { HAS(up, m) && role[m] == kProbing && (MEMBERS_OF(m) & in_sync) == 0 && WITHIN(MEMBERS_OF(m), up) && number[m] == newest && newest < NUMBERS ->
        propose(MEMBERS_OF(m), m);
        printf("%d goes on from its own disk: the loss number %d\n", m, newest);
        in_sync = in_sync | BIT(m); loss_takeover = loss_takeover | BIT(m);
        adopt(m, newest);
        accept_loss(m) }
#ifdef RESENT
    :: d_step { SERVES(m) && KNOWS_LOSS(m) && untold != 0 && SENT_AGAIN(m, 0) && SENT_AGAIN(m, 1) ->
        printf("each client has sent again to %d what it has open\n", m);
        untold = 0 }
#else
    :: d_step { SERVES(m) && KNOWS_LOSS(m) && untold != 0 ->
        i = (HAS(untold, 0) -> 0 : 1); /* which one comes first is of no account */
        printf("the session of client %d ends with an error\n", i);
        untold = WITHOUT(untold, i); open[i] = 0;
        sent[AT(0, i)] = 0; sent[AT(1, i)] = 0; /* it says the older loss count */
        i = 0 }
#endif
#ifndef DURABLE
    :: d_step { HAS(up, m) && durable[m] != content[m] -> printf("%d: the disk writes back\n", m); MAKE_DURABLE(m) }
#endif
#endif

    /* ---- faults */
#if DEATHS
    :: d_step { HAS(up, m) && deaths < DEATHS -> printf("%d dies\n", m); die(m) }
#endif
#if CUTS
    :: d_step { HAS(up, m) && cuts < CUTS ->
        printf("%d loses its power\n", m);
        cuts++;
        end_process(m);
        loss_takeover = WITHOUT(loss_takeover, m);
        in_sync = WITHOUT(in_sync, m);
#ifndef DURABLE
        content[m] = durable[m];
#endif
        forget_all(m) }
#endif
    :: d_step { !HAS(up, m) ->
        printf("%d starts\n", m);
        up = up | BIT(m);
        if
        :: HAS(MEMBERS_OF(m), m) && PRIMARY_OF(m) == m -> take_over(m)
        :: HAS(MEMBERS_OF(m), m) && PRIMARY_OF(m) != m -> role[m] = kSecondary
        :: else
        fi }
    od
}

/* What happens between a primary m and another replica s. */
proctype Peer(byte m; byte s) {
end:
    do
    /* ---- R5 */
    :: d_step { RUNS(m) && number[m] == newest && newest < NUMBERS && HAS(MEMBERS_OF(m), s) ->
        propose(WITHOUT(MEMBERS_OF(m), s), m);
        printf("%d goes on without %d: %d is {members %d, primary %d}\n", m, s, newest, record_members[newest], m);
        adopt(m, newest) }

    /* ---- R7, and each later number */
    :: d_step { HAS(up, m) && role[m] == kPreparing && !HAS(ready[m], s) && HAS(MEMBERS_OF(m), s) && HAS(up, s) && number[s] <= number[m] && COUNTS(s, m) ->
        printf("%d stores %d for the take-over by %d\n", s, number[m], m);
        number[s] = number[m]; leave_primary(s); close_sessions(s); role[s] = kSecondary; in_sync = in_sync | BIT(s);
        agree(m, s);
        ready[m] = ready[m] | BIT(s) }
    :: d_step { SERVES(m) && HAS(to_copy[m], s) && TAKES(s, m) ->
        printf("%d copies the region to %d\n", m, s);
        content[s] = content[m]; MAKE_DURABLE(s);
        to_copy[m] = WITHOUT(to_copy[m], s) }
#if MEMBERS == 3
    :: d_step { SERVES(m) && HAS(MEMBERS_OF(m), s) && HAS(up, s) && number[s] < number[m] && IN_SYNC(s) ->
        printf("%d stores %d for %d\n", s, number[m], m);
        adopt(s, number[m]) }
#endif

    /* ---- R12 */
    :: d_step { SERVES(m) && number[m] == newest && newest < NUMBERS && op[AT(m, 0)] == 0 && op[AT(m, 1)] == 0 && COPIED(m) &&
                !HAS(MEMBERS_OF(m), s) && HAS(up, s) && number[s] <= number[m] ->
        content[s] = content[m]; MAKE_DURABLE(s);
        join_ids(m, s);
        propose(MEMBERS_OF(m) | BIT(s), m);
        printf("%d brings in %d: %d is {members %d, primary %d}\n", m, s, newest, record_members[newest], m);
        adopt(m, newest); adopt(s, newest);
        in_sync = in_sync | BIT(s) }
    od
}

proctype Client(byte c) {
end:
    do
    :: d_step { open[c] == 0 && NEXT_VALUE(c) <= WRITES && MAY_BEGIN(c) ->
        begin_write(c);
        printf("client %d writes %d\n", c, open[c]) }
    :: d_step { open[c] != 0 && HAS(up, 0) && sent[AT(0, c)] != open[c] && op[AT(0, c)] != open[c] -> printf("client %d sends %d to 0\n", c, open[c]); sent[AT(0, c)] = open[c] }
    :: d_step { open[c] != 0 && HAS(up, 1) && sent[AT(1, c)] != open[c] && op[AT(1, c)] != open[c] -> printf("client %d sends %d to 1\n", c, open[c]); sent[AT(1, c)] = open[c] }
#if MEMBERS == 3
    :: d_step { open[c] != 0 && HAS(up, 2) && sent[AT(2, c)] != open[c] && op[AT(2, c)] != open[c] -> printf("client %d sends %d to 2\n", c, open[c]); sent[AT(2, c)] = open[c] }
#endif
    od
}

init {
    d_step {
        record_members[1] = ALL; record_primary[1] = 0;
        do
        :: i < MEMBERS -> number[i] = 1; role[i] = (i == 0 -> kServing : kSecondary); i++
        :: else -> break
        od;
        i = 0
    };
    atomic {
        do
        :: i < MEMBERS * MEMBERS && i / MEMBERS == i % MEMBERS ->
            run Node(i / MEMBERS); run Request(i / MEMBERS, 0); run Request(i / MEMBERS, 1); i++
        :: i < MEMBERS * MEMBERS && i / MEMBERS != i % MEMBERS ->
            run Peer(i / MEMBERS, i % MEMBERS); run Replicate(i / MEMBERS, i % MEMBERS, 0); run Replicate(i / MEMBERS, i % MEMBERS, 1); i++
        :: else -> break
        od;
        i = 0;
        run Client(0); run Client(1)
    }
}
