/* The authority's own loss, R16: a store that was restored from a backup gives nobody a number that others have gone beyond.
 *
 * HOSTS hosts with a replica each, and a store with the volume's record (number, members, primary). A backup of the store is
 * made at any time and restored at any time later. From then on the store authorizes nothing (it is frozen), until each host of
 * the newest record that anybody reported has reported what its superblock holds; then that record is the store's. A host that
 * is down reports nothing, and neither does its replica serve.
 *
 * A proposal is stored, sent, and authorized some time later or never (R4); nothing is acknowledged meanwhile. What
 * membership.pml searches in detail is one step here: a write that all members have, a read that all confirm, a take-over with
 * its copies.
 *
 * Bounds: HOSTS (2 or 3); NUMBERS, the greatest; FAILS: how often a host goes down; WRITES. Each NO_... takes out a rule, or a
 * part of one.
 */
#ifndef HOSTS
#define HOSTS 3
#endif
#ifndef NUMBERS
#define NUMBERS 4
#endif
#ifndef FAILS
#define FAILS 2
#endif
#ifndef WRITES
#define WRITES 1
#endif

#define BIT(m) (1 << (m))
#define ALL (BIT(HOSTS) - 1)
#define HAS(set, m) (((set) >> (m)) & 1)
#define WITHIN(set, other) (((set) & (ALL - (other))) == 0)

/* The store, and its backup. */
byte store_number = 1, store_members = 3, store_primary = 0;
byte backup_number = 0, backup_members = 0, backup_primary = 0;
bit restored = 0, frozen = 0;
/* What was reported since it is frozen: by whom, and the newest record of these. */
byte reported = 0;
byte best_number = 0, best_members = 0, best_primary = 0;

/* The superblock and the disk. */
byte number[HOSTS], members[HOSTS], primary[HOSTS];
byte pending[HOSTS]; /* members of a proposal whose outcome is not known, by this host as primary; 0: none */
byte content[HOSTS];

/* The process. */
byte up = ALL;
byte serving = 0; /* by role */

byte acknowledged = 0;
byte written = 0, fails = 0;
byte i = 0, next = 0; /* zero between steps */

#define MEMBER(m) HAS(members[m], m)
#define FOLLOWS(s, m) (HAS(up, s) && number[s] == number[m] && primary[s] == primary[m])
#define CONFIRMS(s, m) ((s) == m || !HAS(members[m], s) || FOLLOWS(s, m))
#if HOSTS == 3
#define ALL_CONFIRM(m) (CONFIRMS(0, m) && CONFIRMS(1, m) && CONFIRMS(2, m))
#else
#define ALL_CONFIRM(m) (CONFIRMS(0, m) && CONFIRMS(1, m))
#endif
#define SERVES(m) (HAS(up, m) && HAS(serving, m) && pending[m] == 0 && ALL_CONFIRM(m))

#ifdef NO_FREEZE
#define FREEZES 0
#else
#define FREEZES 1
#endif
/* R16: each host of the newest record that was reported. */
#ifdef NO_FOLLOWING
#define ASKED store_members /* of the record in the backup */
#else
#define ASKED best_members
#endif
#ifdef NO_WAIT
#define HEARD (reported != 0)
#else
#define HEARD WITHIN(ASKED, reported)
#endif

inline adopt(host, newer, who, whose) {
    number[host] = newer; members[host] = who; primary[host] = whose;
    serving = serving & (ALL - BIT(host))
}

proctype Volume(byte m) {
end:
    do
    /* It goes down, and comes back in a while: its process forgets, its disk does not. */
    :: atomic { HAS(up, m) && fails < FAILS -> up = up - BIT(m); serving = serving & (ALL - BIT(m)); fails++; printf("host %d goes down\n", m) }
    :: atomic { !HAS(up, m) -> up = up + BIT(m); printf("host %d comes back\n", m) }

    /* R7: primary of the record that it has, and of the store's: the other members take it over, with its content. */
    :: atomic { HAS(up, m) && !HAS(serving, m) && pending[m] == 0 && MEMBER(m) && primary[m] == m && number[m] == store_number && store_primary == m ->
        serving = serving + BIT(m); printf("host %d is primary of number %d\n", m, number[m]) }
    :: atomic { HAS(up, m) && HAS(serving, m) && pending[m] == 0 ->
        i = 0;
        do
        :: i < HOSTS && i != m && HAS(members[m], i) && HAS(up, i) && number[i] < number[m] ->
            adopt(i, number[m], members[m], m); pending[i] = 0; content[i] = content[m]; printf("host %d stores number %d of host %d\n", i, number[m], m); i++
        :: i < HOSTS && !(i != m && HAS(members[m], i) && HAS(up, i) && number[i] < number[m]) -> i++
        :: i == HOSTS -> break
        od;
        i = 0 }

    /* R4, R5, R6: a proposal of a primary, or of a member whose primary is gone; stored before it is sent. Who joins is copied. */
    :: atomic { HAS(up, m) && MEMBER(m) && pending[m] == 0 && number[m] < NUMBERS && (HAS(serving, m) || !HAS(up, primary[m])) && number[m] == store_number ->
        if
        :: next = members[m] & up /* without who is gone */
        :: HAS(serving, m) && ALL_CONFIRM(m) -> next = ALL & up | members[m] /* and with who joins */
        fi;
        if
        :: next != members[m] || !HAS(serving, m) -> pending[m] = next | BIT(m); printf("host %d proposes number %d with members %d\n", m, number[m] + 1, pending[m])
        :: else -> skip
        fi;
        next = 0 }
    /* It arrives, also long after. */
    :: atomic { pending[m] != 0 && !frozen && store_number == number[m] && HAS(store_members, m) ->
        store_number++; store_members = pending[m]; store_primary = m; printf("the store authorizes number %d of host %d\n", store_number, m) }
    /* Its outcome. */
    :: atomic { HAS(up, m) && pending[m] != 0 && store_number == number[m] + 1 && store_members == pending[m] && store_primary == m ->
        adopt(m, store_number, store_members, m); pending[m] = 0 }
    :: atomic { HAS(up, m) && pending[m] != 0 && store_number > number[m] && !(store_number == number[m] + 1 && store_members == pending[m] && store_primary == m) ->
        pending[m] = 0; serving = serving & (ALL - BIT(m)) }

    /* R2 */
    :: atomic { SERVES(m) && written < WRITES ->
        written++; i = 0;
        do
        :: i < HOSTS && HAS(members[m], i) -> content[i] = written; i++
        :: i < HOSTS && !HAS(members[m], i) -> i++
        :: i == HOSTS -> break
        od;
        i = 0; acknowledged = written; printf("host %d answers write %d under number %d\n", m, written, number[m]) }
    :: atomic { SERVES(m) && content[m] < acknowledged -> printf("host %d reads under number %d\n", m, number[m]); assert(false) /* a read shows less than what was answered */ }

    /* R16: it reports what its superblock holds. */
    :: atomic { HAS(up, m) && frozen && !HAS(reported, m) ->
        reported = reported + BIT(m); printf("host %d reports number %d with members %d\n", m, number[m], members[m]);
        if
        :: number[m] > best_number -> best_number = number[m]; best_members = members[m]; best_primary = primary[m]
        :: else -> skip
        fi }
#ifdef NO_GENERATION
    /* Nobody told the store that it was restored: a host notices that has seen more. */
    :: atomic { HAS(up, m) && restored && !frozen && number[m] > store_number ->
        frozen = 1; best_number = store_number; best_members = store_members; best_primary = store_primary }
#endif
    od
}

proctype Store() {
end:
    do
    :: atomic { backup_number == 0 -> printf("a backup is made\n"); backup_number = store_number; backup_members = store_members; backup_primary = store_primary }
    :: atomic { backup_number != 0 && !restored -> printf("the store is restored to number %d\n", backup_number);
        store_number = backup_number; store_members = backup_members; store_primary = backup_primary; restored = 1;
#ifndef NO_GENERATION
        frozen = FREEZES; best_number = store_number; best_members = store_members; best_primary = store_primary
#endif
        }
    :: atomic { frozen && HEARD -> printf("the store has number %d from now on\n", best_number);
#ifndef NO_GREATEST
        store_number = best_number; store_members = best_members; store_primary = best_primary;
#endif
        frozen = 0; reported = 0 }
    od
}

init {
    atomic {
        do
        :: i < HOSTS -> number[i] = 1; members[i] = 3; i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < HOSTS -> run Volume(i); i++
        :: else -> break
        od;
        i = 0;
        run Store()
    }
}
