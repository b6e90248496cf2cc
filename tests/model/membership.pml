/* Who may serve, and what is never lost: R1, R2, R3, R4, R5, R7, R9, R10, R11 and R12 over one block.
 *
 * MEMBERS replicas, an authority, and a client that writes (the values 1 to WRITES, one at a time), reads (as often as it
 * likes) and flushes. Every process may stop at any step for as long as it likes; acknowledgements and answers may be lost;
 * DEATHS processes die and come back in the same boot, CUTS lose what was not flushed and come back in another one. Names
 * are those of ublkd/replication: the roles of node.h, and per node what its superblock holds. A retry of a write is known by
 * its value; retries of several clients are in retries.pml.
 *
 * Bounds: MEMBERS (2 or 3); NUMBERS, the greatest; WRITES; DEATHS; CUTS; START, the members of the first record as a set, the
 * others having been lost just before; FLUSHES: the client flushes; NO_READS: it does not read; LATE: replicated writes may
 * be late (2 members); HANDOVER: a primary's disk may fail. Each other NO_... takes out a rule, or a part of one.
 */
#ifndef MEMBERS
#define MEMBERS 2
#endif
#ifndef NUMBERS
#define NUMBERS 4
#endif
#ifndef WRITES
#define WRITES 1
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
#define WITHOUT(set, m) ((set) & (ALL - BIT(m)))
#define WITHIN(set, other) (((set) & (ALL - (other))) == 0)
#ifndef START
#define START ALL
#endif

/* Role */
#define kOut 0
#define kSecondary 1
#define kProbing 2
#define kPreparing 3
#define kServing 4

/* What a primary's one operation is: a value that is written, or */
#define kFlush 6
#define kUnion 7

/* The authority: its number, and the record of each number. */
byte newest = 1;
byte record_members[NUMBERS + 1];
byte record_primary[NUMBERS + 1];
byte loss_numbers = 0; /* a set of numbers (R9) */

/* The superblock and the disk. */
byte number[MEMBERS];
byte pending_members[MEMBERS]; /* R4: a proposal whose outcome is not known; 0: none */
byte pending_primary[MEMBERS];
byte content[MEMBERS]; /* what a read of the disk shows */
byte in_sync = START;
byte activity = 0;
byte dirty[MEMBERS * MEMBERS]; /* dirty[m, s]: m's map for the lost s: the number of the loss * 2, + 1: dirty; 0: none */
byte last_member[MEMBERS];     /* the last number at which m was a member (R11) */
#if CUTS
byte durable[MEMBERS]; /* what the disk shows after a power cut */
#endif

/* The process. */
byte up = ALL;
byte role[MEMBERS];
byte op[MEMBERS], op_has[MEMBERS]; /* a primary's operation, and who has acknowledged it under this number */
byte reading = 0, confirmed[MEMBERS];
byte ready[MEMBERS];     /* preparing: who stored the record and answered; probing: who restarted too */
byte joining[MEMBERS];   /* R12: the replica that joins, + 1 */
byte join_asked = 0;     /* it has everything: acknowledgements need it */
byte to_copy = 0;        /* R7: the union of the maps is not copied yet */
byte undurable = 0;      /* R10: something has ended since the last flush on all members */
byte loss_proposal = 0;  /* R9: the pending proposal is a loss number, made in this boot */
byte loss_takeover = 0;  /* R9: preparing under one's own loss number */

/* The client. `shown`: what was answered; a read begins with it as its least. */
byte asked = 0, shown = 0, read_least = 0;
bit write_open = 0, read_open = 0;
#if CUTS
byte kept = 0;               /* what was answered since the newest loss number; a session begins with it */
byte gone = 0;               /* a set of values: what a read in a session after a loss found gone */
byte lost_to = 0;            /* the greatest value that may have been lost, until that read */
byte last_loss = 0, loss_by = MEMBERS;
bit told = 1;                /* the client's session knows of the newest loss */
#endif
#ifdef FLUSHES
bit flush_open = 0;
byte flushed = 0;
#define NO_FLUSH !flush_open
#define FLUSHED_VALUE flushed
#else
#define NO_FLUSH true
#define FLUSHED_VALUE 0
#endif

byte deaths = 0, cuts = 0;
byte i = 0; /* zero between steps */

#ifdef LATE
byte wire_number[MEMBERS], wire_value[MEMBERS]; /* to m from the other one: a replicated write that is late */
#define HANG_UP(s) wire_number[s] = 0; wire_value[s] = 0
#else
#define HANG_UP(s) skip
#endif
/* R7: s closes what is older before it stores the record. */
#ifdef NO_CLOSE
#define CLOSE(s) skip
#else
#define CLOSE(s) HANG_UP(s)
#endif

#define MEMBERS_OF(m) record_members[number[m]]
#define PRIMARY_OF(m) record_primary[number[m]]
#define RUNS(m) (HAS(up, m) && role[m] >= kPreparing)
#define SERVES(m) (HAS(up, m) && role[m] == kServing)
#define SAME(m, s) (HAS(up, s) && role[s] == kSecondary && number[s] == number[m] && PRIMARY_OF(s) == m)

/* R2, R4: whose acknowledgement and confirmation a primary needs. */
#ifdef NO_JOINT
#define NEEDED(m) MEMBERS_OF(m)
#else
#define ASKED(m) (HAS(join_asked, m) -> BIT(joining[m] - 1) : 0)
#define NEEDED(m) (MEMBERS_OF(m) | pending_members[m] | ASKED(m))
#endif
#ifdef NO_ACK_ALL
#define ACKNOWLEDGED(m) HAS(op_has[m], m)
#else
#define ACKNOWLEDGED(m) WITHIN(NEEDED(m), op_has[m])
#endif
/* R5: a member that is being left out is asked for nothing more; copies do not wait for it, all else does. */
#ifdef NO_LOST_FOR_GOOD
#define LOST(m, s) false
#else
#define LOST(m, s) (pending_members[m] != 0 && !HAS(pending_members[m], s))
#endif
#define COPY_NEEDED(m) (pending_members[m] -> (MEMBERS_OF(m) & pending_members[m]) : MEMBERS_OF(m))

#ifdef NO_BOOT_CHECK
#define IN_SYNC(m) true
#else
#define IN_SYNC(m) HAS(in_sync, m)
#endif
/* R1: what a member takes from a primary. */
#define TAKES(s, m) (SAME(m, s) && ((HAS(MEMBERS_OF(m), s) && IN_SYNC(s)) || joining[m] == s + 1))

#ifdef NO_NUMBER_CHECK
#define TAKES_LATE(s, m) HAS(up, s)
#else
#define TAKES_LATE(s, m) (TAKES(s, m) && wire_number[s] == number[s])
#endif

#if CUTS
#ifdef NO_LOSS_COUNT
#define KNOWS(m) (loss_by == m)
#else
#define KNOWS(m) (number[m] >= last_loss)
#endif
#define SESSION(m) (told || !KNOWS(m))
#define TELLS(m) (SERVES(m) && KNOWS(m))
#if MEMBERS == 3
#define SOMEBODY_TELLS (TELLS(0) || TELLS(1) || TELLS(2))
#else
#define SOMEBODY_TELLS (TELLS(0) || TELLS(1))
#endif
#define MAKE_DURABLE(m) durable[m] = content[m]
#define KEEP(value) kept = ((told && value > kept) -> value : kept)
#else
#define SESSION(m) true
#define MAKE_DURABLE(m) skip
#define KEEP(value) skip
#endif
#ifdef NO_COPY_DURABLE
#define COPY_DURABLE(m) skip
#else
#define COPY_DURABLE(m) MAKE_DURABLE(m)
#endif
#if defined(NO_JOIN_FLUSH)
#define JOIN_FLUSH(m) skip
#else
#define JOIN_FLUSH(m) MAKE_DURABLE(m)
#endif

/* R3: reads and writes exclude each other. */
#ifdef NO_RANGE_LOCK
#define FREE_TO_WRITE(m) (op[m] == 0)
#define FREE_TO_READ(m) true
#else
#define FREE_TO_WRITE(m) (op[m] == 0 && !HAS(reading, m))
#define FREE_TO_READ(m) (op[m] == 0 || op[m] == kFlush)
#endif

/* R10: all members have stored the primary's number. */
#define READY(m, s) (!HAS(MEMBERS_OF(m), s) || s == m || TAKES(s, m))
#if MEMBERS == 3
#define ALL_READY(m) (READY(m, 0) && READY(m, 1) && READY(m, 2))
#else
#define ALL_READY(m) (READY(m, 0) && READY(m, 1))
#endif
/* R10: what every member has was flushed on every member. */
#if CUTS && !defined(NO_BITS_DURABLE)
#define FLUSHED(m) (!HAS(undurable, m))
#else
#define FLUSHED(m) true
#endif
#define MAY_CLEAR(m) (SERVES(m) && op[m] == 0 && pending_members[m] == 0 && !HAS(to_copy, m) && FLUSHED(m) && ALL_READY(m))

/* R11: the map was begun when s was lost. */
#ifdef NO_LOSS_BOUND
#define FITS(m, s) (dirty[m * MEMBERS + s] != 0)
#else
#define FITS(m, s) (dirty[m * MEMBERS + s] != 0 && (dirty[m * MEMBERS + s] >> 1) == last_member[s] + 1)
#endif

/* m's content changes: its maps for lost replicas say so first (R11). */
inline mark_lost(m) {
    i = 0;
    do
    :: i < MEMBERS -> if :: dirty[m * MEMBERS + i] != 0 -> dirty[m * MEMBERS + i] = dirty[m * MEMBERS + i] | 1 :: else fi; i++
    :: else -> break
    od;
    i = 0
}

inline apply(m, value) {
    if
    :: value == kFlush -> MAKE_DURABLE(m)
    :: value < kFlush && value != content[m] -> activity = activity | BIT(m); mark_lost(m); content[m] = value
    :: else
    fi
}

/* A copy is a write of its target: it sets the target's bits first (R7). */
inline copy_to(m, s) {
#ifndef NO_COPY_ACTIVITY
    activity = activity | BIT(s);
#endif
#ifndef NO_COPY_DIRTY
    mark_lost(s);
#endif
    content[s] = content[m];
    COPY_DURABLE(s)
}

/* Node::leave_primary() */
inline leave_primary(m) {
    op[m] = 0; op_has[m] = 0; confirmed[m] = 0; ready[m] = 0; joining[m] = 0;
    reading = WITHOUT(reading, m); join_asked = WITHOUT(join_asked, m); to_copy = WITHOUT(to_copy, m);
    undurable = WITHOUT(undurable, m); loss_takeover = WITHOUT(loss_takeover, m)
}

inline forget_proposal(m) { pending_members[m] = 0; pending_primary[m] = 0; loss_proposal = WITHOUT(loss_proposal, m) }

/* Node::take_over(), or Node::probe() where m restarted in another boot. */
inline take_over(m) {
    leave_primary(m);
    ready[m] = BIT(m);
    role[m] = (IN_SYNC(m) -> kPreparing : kProbing)
}

/* Node::adopt() and record_stored(): m has stored the record of the number n. */
inline adopt(m, n) {
    if
    :: HAS(record_members[n], m) ->
        /* R5: the map of a lost member begins as the keeper's activity map, bound to the number of the loss (R11). */
        i = 0;
        do
        :: i < MEMBERS ->
            if
            :: i != m && HAS(MEMBERS_OF(m), i) && HAS(MEMBERS_OF(m), m) && !HAS(record_members[n], i) ->
#ifdef NO_KEEPER_MAP
                dirty[m * MEMBERS + i] = n * 2
#else
                dirty[m * MEMBERS + i] = n * 2 + HAS(activity, m)
#endif
            :: HAS(record_members[n], i) -> dirty[m * MEMBERS + i] = 0
            :: else
            fi;
            i++
        :: else -> break
        od;
        i = 0;
        last_member[m] = n
    :: else
    fi;
    number[m] = n;
    forget_proposal(m);
    if
    :: !HAS(record_members[n], m) -> leave_primary(m); role[m] = kOut; in_sync = WITHOUT(in_sync, m)
    :: HAS(record_members[n], m) && record_primary[n] != m -> leave_primary(m); role[m] = kSecondary
    :: HAS(record_members[n], m) && record_primary[n] == m && role[m] != kServing -> take_over(m)
    :: else -> /* goes on serving; acknowledgements counted under the old number */
#ifndef NO_ACK_NUMBER
        op_has[m] = op_has[m] & BIT(m); confirmed[m] = 0;
#endif
        join_asked = WITHOUT(join_asked, m);
        if
        :: joining[m] != 0 && HAS(record_members[n], joining[m] - 1) -> joining[m] = 0
        :: joining[m] != 0 && !HAS(record_members[n], joining[m] - 1) -> /* it stores the new number first */
            in_sync = WITHOUT(in_sync, joining[m] - 1)
        :: else
        fi
    fi
}

inline answer_write(value) {
    if
    :: write_open && value == asked -> write_open = 0; shown = (value > shown -> value : shown); KEEP(value)
    :: else
    fi
}

inline answer_read(m) {
    assert(content[m] >= read_least); /* a read shows less than what was answered before it */
#if CUTS
    assert(!(told && HAS(gone, content[m]))); /* what a loss took comes back */
#endif
#if CUTS
    i = content[m] + 1;
    do :: told && i <= lost_to -> gone = gone | BIT(i); i++ :: else -> break od;
    i = 0; lost_to = 0;
#endif
    shown = (content[m] > shown -> content[m] : shown);
    KEEP(content[m]);
    read_open = 0; read_least = 0; reading = 0;
    i = 0;
    do :: i < MEMBERS -> confirmed[i] = 0; i++ :: else -> break od;
    i = 0
}

#ifdef FLUSHES
/* The client's flush has ended; what other primaries still have of it answers nobody. */
inline drop_flushes() {
    i = 0;
    do :: i < MEMBERS -> if :: op[i] == kFlush -> op[i] = 0; op_has[i] = 0 :: else fi; i++ :: else -> break od;
    i = 0
}
#endif

/* An answered write is on every in-sync member. */
inline check_members_have(m, value) {
    i = 0;
    do
    :: i < MEMBERS ->
        assert(!HAS(MEMBERS_OF(m) & in_sync, i) || number[i] != number[m] || content[i] >= value); /* a write is answered that a member lacks */
        i++
    :: else -> break
    od;
    i = 0
}

/* Members of the record that no map tells apart hold the same. */
inline check_members_equal(m) {
    i = 0;
    do
    :: i < MEMBERS ->
        assert(!HAS(MEMBERS_OF(m) & ready[m] & in_sync, i) || number[i] != number[m] || content[i] == content[m]); /* members differ where no map says so */
        i++
    :: else -> break
    od;
    i = 0
}

#if CUTS
/* R9: m goes on from its own disk; what a flush covered is there. */
inline accept_loss(m) {
    assert(content[m] >= FLUSHED_VALUE); /* what was flushed is lost */
    last_loss = number[m]; loss_by = m; told = 0; kept = FLUSHED_VALUE
}
#endif

proctype Node(byte m) {
end:
    do
    /* ---- requests (primary.cc, acknowledging.cc) */
    :: d_step { SERVES(m) && SESSION(m) && write_open && FREE_TO_WRITE(m) && !HAS(to_copy, m) ->
        printf("%d takes the write of %d\n", m, asked);
        op[m] = asked; op_has[m] = 0; undurable = undurable | BIT(m);
        if :: asked > content[m] -> activity = activity | BIT(m); mark_lost(m) :: else fi;
        if :: joining[m] != 0 -> dirty[m * MEMBERS + joining[m] - 1] = dirty[m * MEMBERS + joining[m] - 1] | 1 :: else fi }
#ifdef FLUSHES
    :: d_step { SERVES(m) && SESSION(m) && flush_open && op[m] == 0 ->
        printf("%d takes the flush\n", m);
        op[m] = kFlush; op_has[m] = 0 }
#endif
    :: d_step { SERVES(m) && op[m] != 0 && !HAS(op_has[m], m) ->
        printf("%d: own disk\n", m);
        apply(m, op[m]); op_has[m] = op_has[m] | BIT(m) }
    :: atomic { SERVES(m) && op[m] != 0 && op[m] < kFlush && ACKNOWLEDGED(m) ->
        d_step {
            if
            :: joining[m] != 0 && HAS(op_has[m], joining[m] - 1) ->
                dirty[m * MEMBERS + joining[m] - 1] = dirty[m * MEMBERS + joining[m] - 1] & 254
            :: else
            fi
        };
        if
        :: d_step { printf("%d answers the write of %d\n", m, op[m]); check_members_have(m, op[m]); answer_write(op[m]) }
        :: printf("%d: the answer to the write is lost\n", m)
        fi;
        op[m] = 0; op_has[m] = 0 }
    :: d_step { SERVES(m) && op[m] == kFlush && WITHIN(NEEDED(m), op_has[m]) ->
        printf("%d answers the flush\n", m);
#ifdef FLUSHES
        flush_open = 0; flushed = kept;
        drop_flushes();
#endif
        undurable = WITHOUT(undurable, m) }
    :: d_step { SERVES(m) && SESSION(m) && read_open && !HAS(reading, m) && FREE_TO_READ(m) && !HAS(to_copy, m) ->
        printf("%d takes the read\n", m);
        reading = reading | BIT(m); confirmed[m] = 0 }
    :: d_step { SERVES(m) && HAS(reading, m) && WITHIN(NEEDED(m), confirmed[m] | BIT(m)) ->
        printf("%d answers the read: %d\n", m, content[m]);
        answer_read(m) }
#ifdef NO_CONFIRM
    :: d_step { SERVES(m) && HAS(reading, m) && confirmed[m] != ALL -> confirmed[m] = ALL }
#endif
#if CUTS
    :: d_step { HAS(up, m) && durable[m] != content[m] -> printf("%d: the disk writes back\n", m); MAKE_DURABLE(m) }
#endif
    :: d_step { MAY_CLEAR(m) && HAS(activity, m) -> printf("%d clears its bit\n", m); activity = WITHOUT(activity, m) }

    /* ---- R7: the union of the activity maps */
    :: d_step { SERVES(m) && HAS(to_copy, m) && op[m] == 0 ->
        printf("%d copies the region\n", m);
        op[m] = kUnion; op_has[m] = BIT(m) }
    :: d_step { SERVES(m) && op[m] == kUnion && WITHIN(COPY_NEEDED(m), op_has[m]) ->
        printf("%d: the region is copied\n", m);
        to_copy = WITHOUT(to_copy, m); op[m] = 0; op_has[m] = 0 }
    :: d_step { HAS(up, m) && role[m] == kPreparing && WITHIN(NEEDED(m), ready[m]) ->
        printf("%d serves\n", m);
        role[m] = kServing;
        assert(number[m] != newest || content[m] >= FLUSHED_VALUE); /* what was flushed is lost */
        undurable = (HAS(to_copy, m) || HAS(activity, m) -> undurable | BIT(m) : undurable);
        to_copy = ((HAS(to_copy, m) || HAS(activity, m)) && MEMBERS_OF(m) != BIT(m) -> to_copy | BIT(m) : WITHOUT(to_copy, m));
#ifdef NO_UNION_COPY
        to_copy = WITHOUT(to_copy, m);
#else
        if :: !HAS(to_copy, m) -> check_members_equal(m) :: else fi;
#endif
        ready[m] = 0; loss_takeover = WITHOUT(loss_takeover, m) }

    /* ---- R4, R6, R9: proposals */
    :: atomic { HAS(up, m) && role[m] == kSecondary && HAS(MEMBERS_OF(m), m) && IN_SYNC(m) && pending_members[m] == 0 && number[m] < NUMBERS ->
        pending_primary[m] = m;
        if
        :: pending_members[m] = BIT(m)
        :: WITHOUT(MEMBERS_OF(m), PRIMARY_OF(m)) != BIT(m) -> pending_members[m] = WITHOUT(MEMBERS_OF(m), PRIMARY_OF(m))
        fi;
        printf("%d proposes itself as primary, members %d\n", m, pending_members[m]) }
    :: d_step { HAS(up, m) && pending_members[m] != 0 && number[m] == newest ->
        newest++;
        record_members[newest] = pending_members[m]; record_primary[newest] = pending_primary[m];
        loss_numbers = (HAS(loss_proposal, m) -> loss_numbers | BIT(newest) : loss_numbers);
        printf("the authority: %d is {members %d, primary %d}\n", newest, pending_members[m], pending_primary[m]) }
    /* The answer, or a greater number that was heard and asked for. R9: one that restarted is told by its primary. */
    :: d_step { HAS(up, m) && newest > number[m] && !HAS(loss_proposal, m) &&
                (IN_SYNC(m) || !HAS(record_members[newest], m) || record_primary[newest] == m) ->
        printf("%d learns %d\n", m, newest);
        adopt(m, newest) }
#if CUTS
    :: d_step { HAS(up, m) && newest > number[m] && HAS(loss_proposal, m) ->
        printf("%d learns %d, and had proposed a loss number\n", m, newest);
        if
        :: record_primary[newest] == m && HAS(loss_numbers, newest) ->
            in_sync = in_sync | BIT(m);
            adopt(m, newest);
            loss_takeover = loss_takeover | BIT(m);
            accept_loss(m)
        :: else -> adopt(m, newest)
        fi }
    :: d_step { HAS(up, m) && role[m] == kProbing && pending_members[m] == 0 && WITHIN(MEMBERS_OF(m), ready[m]) && number[m] < NUMBERS ->
        printf("%d proposes a loss number\n", m);
        pending_members[m] = MEMBERS_OF(m); pending_primary[m] = m; loss_proposal = loss_proposal | BIT(m) }
#endif

    /* ---- faults */
#if DEATHS
    :: d_step { HAS(up, m) && deaths < DEATHS ->
        printf("%d dies\n", m);
        deaths++;
        up = WITHOUT(up, m); leave_primary(m); role[m] = kOut; loss_proposal = WITHOUT(loss_proposal, m);
        HANG_UP(m);
#ifdef NO_PENDING
        forget_proposal(m);
#endif
        skip }
#endif
#if CUTS
    :: d_step { HAS(up, m) && cuts < CUTS ->
        printf("%d loses its power\n", m);
        cuts++;
        up = WITHOUT(up, m); leave_primary(m); role[m] = kOut; loss_proposal = WITHOUT(loss_proposal, m);
        content[m] = durable[m]; in_sync = WITHOUT(in_sync, m);
        HANG_UP(m);
        /* A joining replica's session ends with it. */
        i = 0;
        do
        :: i < MEMBERS ->
            if
            :: joining[i] == m + 1 && !HAS(pending_members[i], m) ->
                dirty[i * MEMBERS + m] = dirty[i * MEMBERS + m] | 1; joining[i] = 0; join_asked = WITHOUT(join_asked, i)
            :: else
            fi;
            i++
        :: else -> break
        od;
        i = 0 }
#endif
    :: d_step { !HAS(up, m) ->
        printf("%d starts\n", m);
        up = up | BIT(m);
        if
        :: pending_members[m] != 0 -> printf("%d has a proposal to settle first\n", m) /* R4 */
        :: pending_members[m] == 0 && HAS(MEMBERS_OF(m), m) && PRIMARY_OF(m) == m -> take_over(m)
        :: pending_members[m] == 0 && HAS(MEMBERS_OF(m), m) && PRIMARY_OF(m) != m -> role[m] = kSecondary
        :: else
        fi }
    od
}

/* What happens between a primary m and another replica s. */
proctype Peer(byte m; byte s) {
end:
    do
    /* ---- R2, R7, R12: what a primary sends is applied (secondary.cc); its acknowledgement arrives or is lost. */
#ifdef LATE
    :: d_step { SERVES(m) && op[m] != 0 && op[m] != kUnion && !HAS(op_has[m], s) && wire_number[s] == 0 &&
                (HAS(MEMBERS_OF(m), s) || joining[m] == s + 1) && !LOST(m, s) && HAS(up, s) ->
        wire_number[s] = number[m]; wire_value[s] = op[m] }
#else
    :: atomic { SERVES(m) && op[m] != 0 && op[m] != kUnion && !HAS(op_has[m], s) && !LOST(m, s) && TAKES(s, m) ->
        d_step { printf("%d applies %d\n", s, op[m]); apply(s, op[m]) };
        if :: op_has[m] = op_has[m] | BIT(s) :: printf("%d: its acknowledgement is lost\n", s) fi }
#endif
    :: d_step { SERVES(m) && op[m] == kUnion && HAS(op_has[m], m) && !HAS(op_has[m], s) && HAS(MEMBERS_OF(m), s) && !LOST(m, s) && TAKES(s, m) ->
        printf("%d applies the copy of the region\n", s);
        copy_to(m, s); op_has[m] = op_has[m] | BIT(s) }
#ifndef NO_CONFIRM
    :: d_step { SERVES(m) && HAS(reading, m) && !HAS(confirmed[m], s) && HAS(NEEDED(m), s) && !LOST(m, s) && TAKES(s, m) ->
        printf("%d confirms\n", s);
        confirmed[m] = confirmed[m] | BIT(s) }
#endif
    /* R10: kClear */
    :: d_step { MAY_CLEAR(m) && HAS(activity, s) && HAS(MEMBERS_OF(m), s) ->
        printf("%d clears its bit\n", s);
        activity = WITHOUT(activity, s) }

    /* ---- R5: losing a member */
    :: d_step { RUNS(m) && pending_members[m] == 0 && number[m] < NUMBERS && HAS(MEMBERS_OF(m), s) ->
        pending_members[m] = WITHOUT(MEMBERS_OF(m), s); pending_primary[m] = m;
        printf("%d proposes members %d, without %d\n", m, pending_members[m], s) }
#ifdef HANDOVER
    :: d_step { RUNS(m) && pending_members[m] == 0 && number[m] < NUMBERS && HAS(MEMBERS_OF(m), s) ->
        pending_members[m] = WITHOUT(MEMBERS_OF(m), m); pending_primary[m] = s;
        printf("%d: its disk fails; it proposes %d in its place\n", m, s) }
#endif

    /* ---- R7 (2), and each later number: s closes what is older, stores the record, answers with its map */
    :: d_step { HAS(up, m) && role[m] == kPreparing && !HAS(ready[m], s) && HAS(NEEDED(m), s) && HAS(up, s) && number[s] <= number[m] ->
        if :: number[s] < number[m] -> adopt(s, number[m]) :: else fi;
        role[s] = kSecondary;
        CLOSE(s);
        in_sync = (HAS(loss_takeover, m) -> in_sync | BIT(s) : in_sync);
        if
        :: IN_SYNC(s) ->
            ready[m] = ready[m] | BIT(s);
            to_copy = (HAS(activity, s) -> to_copy | BIT(m) : to_copy)
        :: else
        fi;
        printf("%d stores %d for the take-over by %d\n", s, number[m], m) }
    :: d_step { SERVES(m) && (HAS(MEMBERS_OF(m), s) || joining[m] == s + 1) && HAS(up, s) && number[s] < number[m] ->
        printf("%d stores %d for %d\n", s, number[m], m);
        adopt(s, number[m]);
        role[s] = kSecondary;
        CLOSE(s) }
#if CUTS
    /* R9: kProbe */
    :: d_step { HAS(up, m) && role[m] == kProbing && HAS(MEMBERS_OF(m), s) && !HAS(ready[m], s) && HAS(up, s) && !HAS(in_sync, s) ->
        printf("%d tells %d that it restarted too\n", s, m);
        ready[m] = ready[m] | BIT(s) }
#endif

    /* ---- R12: a replica comes back */
    :: d_step { SERVES(m) && joining[m] == 0 && pending_members[m] == 0 && number[m] < NUMBERS && op[m] == 0 && !HAS(reading, m) &&
                !HAS(MEMBERS_OF(m), s) && HAS(up, s) && number[s] <= number[m] ->
        if :: number[s] < number[m] -> adopt(s, number[m]) :: else fi;
        in_sync = WITHOUT(in_sync, s); role[s] = kSecondary; CLOSE(s);
        if
        :: !FITS(m, s) || (dirty[m * MEMBERS + s] & 1) || HAS(activity, s) -> copy_to(m, s); printf("%d copies all to %d\n", m, s)
        :: else ->
            assert(content[s] == content[m]); /* a replica comes back that differs where no map says so */
            printf("%d finds nothing to copy to %d\n", m, s)
        fi;
        dirty[m * MEMBERS + s] = (dirty[m * MEMBERS + s] != 0 -> dirty[m * MEMBERS + s] & 254 : number[m] * 2);
#ifndef NO_MAPS_COPIED
        i = 0;
        do
        :: i < MEMBERS -> dirty[s * MEMBERS + i] = (i == m || i == s -> 0 : dirty[m * MEMBERS + i]); i++
        :: else -> break
        od;
        i = 0;
#endif
        joining[m] = s + 1 }
    :: d_step { SERVES(m) && joining[m] == s + 1 && !HAS(join_asked, m) && number[s] == number[m] && !(dirty[m * MEMBERS + s] & 1) ->
        printf("%d needs %d from now on\n", m, s);
        join_asked = join_asked | BIT(m) }
    :: d_step { SERVES(m) && joining[m] == s + 1 && HAS(join_asked, m) && !HAS(in_sync, s) && SAME(m, s) && (op[m] == 0 || HAS(op_has[m], s)) ->
        printf("%d is in sync\n", s);
        JOIN_FLUSH(s); in_sync = in_sync | BIT(s) }
    :: d_step { SERVES(m) && joining[m] == s + 1 && HAS(join_asked, m) && HAS(in_sync, s) && pending_members[m] == 0 && number[m] < NUMBERS ->
        pending_members[m] = MEMBERS_OF(m) | BIT(s); pending_primary[m] = m;
        printf("%d proposes members %d, with %d\n", m, pending_members[m], s) }
    :: d_step { SERVES(m) && joining[m] == s + 1 && pending_members[m] == 0 ->
        printf("%d gives up joining %d\n", m, s);
        dirty[m * MEMBERS + s] = dirty[m * MEMBERS + s] | 1; joining[m] = 0; join_asked = WITHOUT(join_asked, m) }

#ifdef LATE
    /* A replicated write that comes late: under another number it is refused (R1). */
    :: atomic { HAS(up, s) && wire_number[s] != 0 ->
        d_step {
            if
            :: TAKES_LATE(s, m) -> printf("%d applies %d\n", s, wire_value[s]); apply(s, wire_value[s])
            :: else -> printf("%d refuses %d\n", s, wire_value[s]); wire_value[s] = 0
            fi
        };
        if
        :: SERVES(m) && number[m] == number[s] && wire_value[s] != 0 && op[m] == wire_value[s] -> op_has[m] = op_has[m] | BIT(s)
        :: true
        fi;
        wire_number[s] = 0; wire_value[s] = 0 }
#endif
    od
}

proctype World() {
end:
    do
    :: d_step { !write_open && asked < WRITES && NO_FLUSH -> asked++; write_open = 1; printf("the client writes %d\n", asked) }
#ifndef NO_READS
    :: d_step { !read_open -> read_open = 1; read_least = shown; printf("the client reads\n") }
#endif
#ifdef FLUSHES
    :: d_step { !write_open && !flush_open && flushed < kept -> flush_open = 1; printf("the client flushes\n") }
#endif
#if CUTS
    /* R9: a primary that knows of a loss ends older sessions with an error, and drops what they had sent. */
    :: d_step { !told && SOMEBODY_TELLS ->
        printf("the client's session ends with an error\n");
        told = 1; shown = kept; lost_to = asked; write_open = 0; read_open = 0; read_least = 0; reading = 0;
#ifdef FLUSHES
        flush_open = 0;
        drop_flushes();
#endif
        skip }
#endif
    od
}

init {
    d_step {
        record_members[1] = START; record_primary[1] = 0;
        do
        :: i < MEMBERS ->
            number[i] = 1; last_member[i] = HAS(START, i); role[i] = (i == 0 -> kServing : (HAS(START, i) -> kSecondary : kOut));
            i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < MEMBERS * MEMBERS -> /* what is no member was lost at the number 1 */
            dirty[i] = (HAS(START, i / MEMBERS) && !HAS(START, i % MEMBERS) -> 2 : 0);
            i++
        :: else -> break
        od;
        i = 0
    };
    atomic {
        run World(); run Node(0); run Node(1); run Peer(0, 1); run Peer(1, 0);
#if MEMBERS == 3
        run Node(2); run Peer(0, 2); run Peer(1, 2); run Peer(2, 0); run Peer(2, 1)
#endif
    }
}
