/* Forced detach, R15: what was forced off writes nothing more once that is said to be done, and its successor loses nothing.
 *
 * MEMBERS replicas, an authority, and two attachments over one block: A writes 1, sends that to any replica at any time and
 * again as often as it likes, and never answers the operator who forces it off. When that is done B is attached, reads as
 * often as it likes, and writes 2. Attachments are part of the record: under a number from off_at on a primary takes nothing
 * of A, and serves B.
 *
 * A proposal is stored, sent, and authorized some time later (R4). What membership.pml searches in detail is one step here: a
 * read and its confirmations, a copy, storing a record; each region is active.
 *
 * Bounds: MEMBERS (2 or 3); NUMBERS, the greatest; DEATHS: a process dies and comes back in the same boot; CUTS: one loses what
 * is not durable and comes back in another boot. Each NO_... takes out a rule, or a part of one.
 */
#ifndef MEMBERS
#define MEMBERS 2
#endif
#ifndef NUMBERS
#define NUMBERS 4
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

/* Role */
#define kOut 0
#define kSecondary 1
#define kProbing 2
#define kPreparing 3
#define kServing 4

#define kNothing 9

/* The authority: its number, the record of each number, and the first one without A. */
byte newest = 1;
byte record_members[NUMBERS + 1];
byte record_primary[NUMBERS + 1];
byte off_at = 0;

/* The superblock and the disk. */
byte number[MEMBERS];
byte pending_members[MEMBERS]; /* R4: a proposal whose outcome is not known; 0: none */
byte pending_primary[MEMBERS];
byte pending_off = 0; /* it is without A */
byte content[MEMBERS];
byte in_sync = ALL;
#if CUTS
byte durable[MEMBERS];
#define MAKE_DURABLE(m) durable[m] = content[m]
#else
#define MAKE_DURABLE(m) skip
#endif
#ifdef NO_RECORD_STORED
byte stored[MEMBERS]; /* the number in the superblock */
#endif

/* The process. */
byte up = ALL;
byte role[MEMBERS];
byte sent = 0;   /* a write of A is in the socket */
byte queued = 0; /* it was taken from there, and has no lock yet */
byte late = 0;   /* and that was after the detach was said to be done */
byte op[MEMBERS], op_has[MEMBERS];
byte ready[MEMBERS];
byte to_copy[MEMBERS]; /* members to which the region is to be copied (R7) */
#if CUTS
byte loss_proposal = 0, loss_takeover = 0; /* R9 */
byte loss_numbers = 0, last_loss = 0;
bit told = 1; /* B's session knows of the newest loss */
#endif

/* The operator and B. */
bit done = 0;
bit write_open = 0, written = 0;
byte seen = kNothing; /* what B's next read has to show */

byte deaths = 0, cuts = 0;
byte i = 0; /* zero between steps */

#define MEMBERS_OF(m) record_members[number[m]]
#define PRIMARY_OF(m) record_primary[number[m]]
#define RUNS(m) (HAS(up, m) && role[m] >= kPreparing)
#define SERVES(m) (HAS(up, m) && role[m] == kServing)
#define NEEDED(m) (MEMBERS_OF(m) | pending_members[m])
#define IN_SYNC(m) HAS(in_sync, m)
#define TAKES(s, m) (HAS(up, s) && role[s] == kSecondary && number[s] == number[m] && PRIMARY_OF(s) == m && HAS(NEEDED(m), s) && IN_SYNC(s))
#define CONFIRMS(s, m) ((s) == m || !HAS(NEEDED(m), s) || TAKES(s, m))
#ifdef NO_CONFIRM
#define ALL_CONFIRM(m) true
#else
#if MEMBERS == 3
#define ALL_CONFIRM(m) (CONFIRMS(0, m) && CONFIRMS(1, m) && CONFIRMS(2, m))
#else
#define ALL_CONFIRM(m) (CONFIRMS(0, m) && CONFIRMS(1, m))
#endif
#endif
#define COPIED(m) ((to_copy[m] & MEMBERS_OF(m)) == 0)
#define MAY_PROPOSE(m) (pending_members[m] == 0 && number[m] < NUMBERS)

/* R15: a primary takes nothing of an attachment that is not in its record. */
#ifdef NO_TOKENS
#define OFF(m) false
#else
#define OFF(m) (off_at != 0 && number[m] >= off_at)
#endif
#ifdef NO_DRAIN
#define DRAINED(m) true
#else
#define DRAINED(m) (op[m] != 1 && !HAS(queued, m))
#endif
#ifdef NO_STORED
#define STORED(m) true
#else
#define STORED(m) (SERVES(m) && number[m] >= off_at && DRAINED(m))
#endif
/* B is in the record. */
#ifdef NO_SUCCESSOR_TOKEN
#define ATTACHED(m) done
#else
#define ATTACHED(m) (done && number[m] >= off_at)
#endif
#if CUTS
#define SESSION(m) (told || number[m] < last_loss)
#define LOST_WITH(m) HAS(loss_takeover, m)
#define PROPOSED_LOSS(m) HAS(loss_proposal, m)
#else
#define SESSION(m) true
#define LOST_WITH(m) false
#define PROPOSED_LOSS(m) false
#endif

/* Node::leave_primary() */
inline leave_primary(m) {
    op[m] = 0; op_has[m] = 0; ready[m] = 0; to_copy[m] = 0;
    queued = WITHOUT(queued, m); late = WITHOUT(late, m)
#if CUTS
    ; loss_takeover = WITHOUT(loss_takeover, m)
#endif
}

inline forget_proposal(m) {
    pending_members[m] = 0; pending_primary[m] = 0; pending_off = WITHOUT(pending_off, m)
#if CUTS
    ; loss_proposal = WITHOUT(loss_proposal, m)
#endif
}

inline take_over(m) {
    leave_primary(m);
    sent = WITHOUT(sent, m);
    ready[m] = BIT(m);
    role[m] = (IN_SYNC(m) -> kPreparing : kProbing)
}

/* m has stored the record of the number n. */
inline adopt(m, n) {
    number[m] = n;
    forget_proposal(m);
    if
    :: !HAS(record_members[n], m) -> leave_primary(m); sent = WITHOUT(sent, m); role[m] = kOut; in_sync = WITHOUT(in_sync, m)
    :: HAS(record_members[n], m) && record_primary[n] != m -> leave_primary(m); sent = WITHOUT(sent, m); role[m] = kSecondary
    :: HAS(record_members[n], m) && record_primary[n] == m && role[m] != kServing -> take_over(m)
    :: else -> op_has[m] = op_has[m] & BIT(m) /* goes on serving; acknowledgements counted under the old number (R2) */
    fi
}

inline propose(m, members, off) {
    pending_members[m] = members; pending_primary[m] = m;
    pending_off = (off -> pending_off | BIT(m) : pending_off)
}

inline end_process(m) {
    up = WITHOUT(up, m); leave_primary(m); role[m] = kOut;
    sent = WITHOUT(sent, m)
#if CUTS
    ; loss_proposal = WITHOUT(loss_proposal, m)
#endif
#ifdef NO_RECORD_STORED
    ; number[m] = stored[m]
#endif
}

inline say_done(m) {
    printf("the detach is said to be done\n");
    done = 1
}

proctype Node(byte m) {
end:
    do
    /* ---- requests */
    :: d_step { HAS(up, m) && !HAS(sent, m) -> printf("A sends its write to %d\n", m); sent = sent | BIT(m) }
    :: d_step { SERVES(m) && HAS(sent, m) && !HAS(queued, m) && op[m] != 1 ->
        sent = WITHOUT(sent, m);
        if
        :: OFF(m) -> printf("%d takes nothing of A\n", m)
        :: else ->
            printf("%d takes the write of A\n", m);
            queued = queued | BIT(m);
            late = (done -> late | BIT(m) : late)
        fi }
    :: d_step { SERVES(m) && HAS(queued, m) && op[m] == 0 && COPIED(m) ->
        printf("%d begins the write of A\n", m);
        op[m] = 1; op_has[m] = 0; queued = WITHOUT(queued, m) }
    :: d_step { SERVES(m) && write_open && op[m] == 0 && COPIED(m) && ATTACHED(m) && SESSION(m) ->
        printf("%d begins the write of B\n", m);
        op[m] = 2; op_has[m] = 0 }
    :: d_step { SERVES(m) && op[m] != 0 && !HAS(op_has[m], m) ->
        printf("%d: its disk has %d\n", m, op[m]);
        content[m] = op[m]; op_has[m] = op_has[m] | BIT(m) }
    :: d_step { SERVES(m) && op[m] != 0 && WITHIN(NEEDED(m), op_has[m]) ->
        printf("%d answers the write of %d\n", m, op[m]);
        assert(!(op[m] == 1 && HAS(late, m))); /* a write of what was forced off is taken, and answered, after that was done */
        if :: op[m] == 2 && write_open && SESSION(m) -> write_open = 0; seen = 2 :: else fi;
        op[m] = 0; op_has[m] = 0; late = WITHOUT(late, m) }
    :: d_step { SERVES(m) && op[m] == 0 && COPIED(m) && ATTACHED(m) && SESSION(m) && ALL_CONFIRM(m) ->
        printf("B reads at %d: %d\n", m, content[m]);
        assert(seen == kNothing || content[m] == seen || (write_open && content[m] == 2)); /* what the successor read or wrote changes */
        seen = content[m] }
#if CUTS
    :: d_step { HAS(up, m) && durable[m] != content[m] -> printf("%d: the disk writes back\n", m); MAKE_DURABLE(m) }
#endif

    /* ---- R15: the operator's force, at a primary; R6: and at who takes over */
    :: d_step { RUNS(m) && MAY_PROPOSE(m) && off_at == 0 ->
        printf("%d proposes to go on without A\n", m);
        propose(m, MEMBERS_OF(m), true) }
    :: d_step { HAS(up, m) && role[m] == kSecondary && HAS(MEMBERS_OF(m), m) && IN_SYNC(m) && MAY_PROPOSE(m) ->
        printf("%d proposes itself as primary\n", m);
        propose(m, WITHOUT(MEMBERS_OF(m), PRIMARY_OF(m)), false) }
    :: d_step { HAS(up, m) && role[m] == kSecondary && HAS(MEMBERS_OF(m), m) && IN_SYNC(m) && MAY_PROPOSE(m) && off_at == 0 ->
        printf("%d proposes itself as primary, without A\n", m);
        propose(m, WITHOUT(MEMBERS_OF(m), PRIMARY_OF(m)), true) }
    :: d_step { HAS(up, m) && pending_members[m] != 0 && number[m] == newest ->
        newest++;
        record_members[newest] = pending_members[m]; record_primary[newest] = pending_primary[m];
        off_at = (HAS(pending_off, m) && off_at == 0 -> newest : off_at);
#if CUTS
        loss_numbers = (HAS(loss_proposal, m) -> loss_numbers | BIT(newest) : loss_numbers);
#endif
        printf("the authority: %d is {members %d, primary %d}\n", newest, pending_members[m], pending_primary[m]) }
    :: d_step { HAS(up, m) && newest > number[m] && !PROPOSED_LOSS(m) && (IN_SYNC(m) || !HAS(record_members[newest], m) || record_primary[newest] == m) ->
        printf("%d learns %d\n", m, newest);
        adopt(m, newest) }
#ifdef NO_RECORD_STORED
    :: d_step { HAS(up, m) && stored[m] != number[m] -> stored[m] = number[m] }
#endif
    :: d_step { off_at != 0 && !done && STORED(m) -> say_done(m) }
#ifdef NO_WAIT
    /* The sole member is out of reach: the operator has the record changed all the same. */
    :: d_step { off_at == 0 && newest < NUMBERS && record_members[newest] == BIT(m) ->
        newest++;
        record_members[newest] = BIT(m); record_primary[newest] = m; off_at = newest;
        say_done(m) }
#endif

    /* ---- R7, R9 */
    :: d_step { HAS(up, m) && role[m] == kPreparing && WITHIN(NEEDED(m), ready[m]) ->
        printf("%d serves\n", m);
        role[m] = kServing; ready[m] = 0;
#if CUTS
        loss_takeover = WITHOUT(loss_takeover, m);
#endif
#ifndef NO_UNION_COPY
        to_copy[m] = WITHOUT(MEMBERS_OF(m), m)
#endif
        }
#if CUTS
    :: d_step { HAS(up, m) && role[m] == kProbing && (MEMBERS_OF(m) & in_sync) == 0 && WITHIN(MEMBERS_OF(m), up) && MAY_PROPOSE(m) ->
        printf("%d proposes a loss number\n", m);
        propose(m, MEMBERS_OF(m), false);
        loss_proposal = loss_proposal | BIT(m) }
    :: d_step { HAS(up, m) && newest > number[m] && PROPOSED_LOSS(m) ->
        printf("%d learns %d, and had proposed a loss number\n", m, newest);
        if
        :: record_primary[newest] == m && HAS(loss_numbers, newest) ->
            in_sync = in_sync | BIT(m);
            adopt(m, newest);
            loss_takeover = loss_takeover | BIT(m);
            last_loss = number[m]; told = 0
        :: else -> adopt(m, newest)
        fi }
    :: d_step { SERVES(m) && !told && number[m] >= last_loss ->
        printf("the session of B ends with an error\n");
        told = 1; write_open = 0; seen = kNothing }
#endif

    /* ---- faults */
#if DEATHS
    :: d_step { HAS(up, m) && deaths < DEATHS -> printf("%d dies\n", m); deaths++; end_process(m) }
#endif
#if CUTS
    :: d_step { HAS(up, m) && cuts < CUTS ->
        printf("%d loses its power\n", m);
        cuts++;
        end_process(m);
        content[m] = durable[m]; in_sync = WITHOUT(in_sync, m) }
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
    :: d_step { SERVES(m) && op[m] != 0 && !HAS(op_has[m], s) && TAKES(s, m) ->
        printf("%d applies %d\n", s, op[m]);
        content[s] = op[m]; op_has[m] = op_has[m] | BIT(s) }

    /* ---- R5, with the operator's force or without it */
    :: d_step { RUNS(m) && MAY_PROPOSE(m) && HAS(MEMBERS_OF(m), s) ->
        printf("%d proposes to go on without %d\n", m, s);
        propose(m, WITHOUT(MEMBERS_OF(m), s), false) }
    :: d_step { RUNS(m) && MAY_PROPOSE(m) && HAS(MEMBERS_OF(m), s) && off_at == 0 ->
        printf("%d proposes to go on without %d and without A\n", m, s);
        propose(m, WITHOUT(MEMBERS_OF(m), s), true) }

    /* ---- R7, and each later number */
    :: d_step { HAS(up, m) && role[m] == kPreparing && !HAS(ready[m], s) && HAS(NEEDED(m), s) && HAS(up, s) && number[s] <= number[m] && (IN_SYNC(s) || LOST_WITH(m)) ->
        printf("%d stores %d for the take-over by %d\n", s, number[m], m);
        number[s] = number[m]; forget_proposal(s); leave_primary(s); sent = WITHOUT(sent, s); role[s] = kSecondary; in_sync = in_sync | BIT(s);
        ready[m] = ready[m] | BIT(s) }
    :: d_step { SERVES(m) && HAS(to_copy[m], s) && TAKES(s, m) ->
        printf("%d copies the region to %d\n", m, s);
        content[s] = content[m]; MAKE_DURABLE(s);
        to_copy[m] = WITHOUT(to_copy[m], s) }
    :: d_step { SERVES(m) && HAS(NEEDED(m), s) && HAS(up, s) && number[s] < number[m] && IN_SYNC(s) ->
        printf("%d stores %d for %d\n", s, number[m], m);
        number[s] = number[m]; forget_proposal(s); leave_primary(s); sent = WITHOUT(sent, s); role[s] = kSecondary }

    /* ---- R12: copied in full, then needed and proposed */
    :: d_step { SERVES(m) && MAY_PROPOSE(m) && op[m] == 0 && COPIED(m) && !HAS(MEMBERS_OF(m), s) && HAS(up, s) && number[s] <= number[m] ->
        printf("%d copies all to %d and proposes it\n", m, s);
        number[s] = number[m]; forget_proposal(s); leave_primary(s); sent = WITHOUT(sent, s); role[s] = kSecondary;
        content[s] = content[m]; MAKE_DURABLE(s); to_copy[m] = WITHOUT(to_copy[m], s);
        in_sync = in_sync | BIT(s);
        propose(m, MEMBERS_OF(m) | BIT(s), false) }
    od
}

proctype Successor() {
end:
    do
    :: d_step { done && !written -> printf("B writes\n"); written = 1; write_open = 1 }
    od
}

init {
    d_step {
        record_members[1] = ALL; record_primary[1] = 0;
        do
        :: i < MEMBERS ->
            number[i] = 1; role[i] = (i == 0 -> kServing : kSecondary);
#ifdef NO_RECORD_STORED
            stored[i] = 1;
#endif
            i++
        :: else -> break
        od;
        i = 0
    };
    atomic {
        run Successor(); run Node(0); run Node(1); run Peer(0, 1); run Peer(1, 0);
#if MEMBERS == 3
        run Node(2); run Peer(0, 2); run Peer(1, 2); run Peer(2, 0); run Peer(2, 1)
#endif
    }
}
