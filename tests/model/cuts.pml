/* Cuts of several volumes by one request, R18: what they preserve is what one moment showed.
 *
 * VOLUMES volumes with two replicas each. A guest writes to one of them, and when that was answered, or a read has shown it, to
 * the next one. A coordinator cuts all volumes: each primary lets what is under way end, holds what comes later, and all its
 * members preserve what they have. When all have done so each primary is asked once more, and if all say that the cut holds the
 * set counts. A hold ends at any time (its deadline).
 *
 * A primary that was replaced may not know it: it goes on in its own view, and its messages reach who still follows it. What
 * membership.pml searches in detail is one step here: a take-over with its copy, a member that leaves, one that joins.
 *
 * Bounds: VOLUMES (2); NUMBERS, the greatest of each volume; TRIES: how often a cut may be begun. Each NO_... takes out a rule,
 * or a part of one.
 */
#ifndef VOLUMES
#define VOLUMES 2
#endif
#ifndef NUMBERS
#define NUMBERS 3
#endif
#ifndef TRIES
#define TRIES 3
#endif

#define REPLICAS (2 * VOLUMES)
#define OTHER(r) ((r) ^ 1)
#define FIRST(v) (2 * (v))
#define BIT(r) (1 << ((r) & 1))
#define HAS(set, r) (((set) >> ((r) & 1)) & 1)

/* The record of each volume, as the authority has it; `primary` is the replica's place in its volume. */
byte number[VOLUMES] = 1, members[VOLUMES] = 3, primary[VOLUMES];

/* The record that each replica goes by, its disk, and what is preserved there. */
byte own_number[REPLICAS] = 1, own_members[REPLICAS] = 3, own_primary[REPLICAS];
bit content[REPLICAS], image[REPLICAS], preserved[REPLICAS];
/* As primary: it serves, a change is under way there, changes are held. */
bit serving[REPLICAS], under_way[REPLICAS], held[REPLICAS];

/* The guest: which volume comes first, and how far it is. */
byte first = 0, stage = 0;
#define TURN(v) (stage < VOLUMES && (v) == (first + stage) % VOLUMES)

/* The coordinator. */
byte tries = 0;
byte asked[VOLUMES];   /* the replica, and one; 0: none */
byte counted[VOLUMES]; /* the number under which all had it; 0: not yet */
bit holds[VOLUMES];    /* it was asked once more, and said yes */
bit over = 0;

#define FOLLOWS(r) (own_number[OTHER(r)] == own_number[r] && own_primary[OTHER(r)] == ((r) & 1))
#define CONFIRMED(r) (!HAS(own_members[r], OTHER(r)) || FOLLOWS(r))
#if VOLUMES == 2
#define ALL_COUNTED (counted[0] != 0 && counted[1] != 0)
#define ALL_HOLD (holds[0] && holds[1])
#endif

#ifdef NO_DRAIN
#define DRAINED(r) 1
#else
#define DRAINED(r) (!under_way[r])
#endif
#ifdef NO_HOLD
#define HELD(r) 0
#else
#define HELD(r) held[r]
#endif
#ifdef NO_CONFIRM
#define ASKS_MEMBERS(r) 1
#else
#define ASKS_MEMBERS(r) CONFIRMED(r)
#endif
#ifdef NO_NUMBER
#define SAME_NUMBER(v, r) 1
#else
#define SAME_NUMBER(v, r) (own_number[r] == counted[v])
#endif
#ifdef NO_CHECK
#define STILL(v, r) 1
#else
#define STILL(v, r) (held[r] && SAME_NUMBER(v, r) && ASKS_MEMBERS(r))
#endif
#ifdef SEQUENTIAL /* each is released when it has been made */
#define WHEN_ASKED(v) 1
#else
#define WHEN_ASKED(v) ALL_COUNTED
#endif

inline go_by(r, newer, who, whose) {
    own_number[r] = newer; own_members[r] = who; own_primary[r] = whose;
    serving[r] = 0; under_way[r] = 0; held[r] = 0
}
inline authorize(v, r, who) {
    number[v]++; members[v] = who; primary[v] = (r) & 1
}

proctype Volume(byte v; byte r) {
end:
    do
    /* R7: a primary serves when all members go by its record. */
    :: atomic { !serving[r] && own_primary[r] == (r & 1) && CONFIRMED(r) -> serving[r] = 1 }
    /* R6: the other one takes over, with this one or without; this one may not hear of it. */
    :: atomic { number[v] < NUMBERS && own_number[r] == number[v] && HAS(members[v], r) && primary[v] != (r & 1) ->
        if
        :: authorize(v, r, 3)
        :: authorize(v, r, BIT(r))
        fi;
        go_by(r, number[v], members[v], r & 1); printf("volume %d: replica %d takes over under number %d\n", v, r, number[v]) }
    /* R5, R12: the primary goes on without the other one, or with it again. */
    :: atomic { number[v] < NUMBERS && own_number[r] == number[v] && primary[v] == (r & 1) && serving[r] && !under_way[r] ->
        if
        :: members[v] == 3 -> authorize(v, r, BIT(r))
        :: members[v] != 3 -> authorize(v, r, 3); preserved[OTHER(r)] = 0; content[OTHER(r)] = content[r]; go_by(OTHER(r), number[v], 3, r & 1)
        fi;
        own_number[r] = number[v]; own_members[r] = members[v]; printf("volume %d: number %d has members %d\n", v, number[v], members[v]) }
    /* R1, R7: it hears of the record, and is made equal. */
    :: atomic { own_number[r] < number[v] && HAS(members[v], r) && own_number[OTHER(r)] == number[v] && own_primary[OTHER(r)] == primary[v] && primary[v] != (r & 1) ->
        go_by(r, number[v], members[v], primary[v]); content[r] = content[OTHER(r)] }

    /* The guest's change, sent again as long as there is no answer. */
    :: atomic { TURN(v) && serving[r] && !under_way[r] && !HELD(r) -> under_way[r] = 1; content[r] = 1 }
    :: atomic { under_way[r] && HAS(own_members[r], OTHER(r)) && FOLLOWS(r) && !content[OTHER(r)] -> content[OTHER(r)] = 1 }
    :: atomic { under_way[r] && CONFIRMED(r) && (!HAS(own_members[r], OTHER(r)) || content[OTHER(r)]) ->
        under_way[r] = 0; assert(TURN(v)); /* nobody knows of it before its answer */
        stage++; printf("volume %d: the change is answered under number %d\n", v, own_number[r]) }
    /* A read that shows it, confirmed. */
    :: atomic { TURN(v) && serving[r] && !under_way[r] && content[r] && CONFIRMED(r) -> stage++; printf("volume %d: a read shows the change under number %d\n", v, own_number[r]) }

    /* The cut. */
    :: atomic { tries < TRIES && !over && counted[v] == 0 && asked[v] != r + 1 && serving[r] ->
        tries++; asked[v] = r + 1; held[r] = 1; preserved[r] = 0; preserved[OTHER(r)] = 0; printf("volume %d: replica %d is to cut\n", v, r) }
    :: atomic { asked[v] == r + 1 && held[r] && DRAINED(r) && !preserved[r] -> image[r] = content[r]; preserved[r] = 1 }
    :: atomic { asked[v] == r + 1 && held[r] && preserved[r] && HAS(own_members[r], OTHER(r)) && FOLLOWS(r) && !preserved[OTHER(r)] ->
        image[OTHER(r)] = content[OTHER(r)]; preserved[OTHER(r)] = 1 }
    :: atomic { asked[v] == r + 1 && held[r] && counted[v] == 0 && preserved[r] && CONFIRMED(r) && (!HAS(own_members[r], OTHER(r)) || preserved[OTHER(r)]) ->
        counted[v] = own_number[r]; printf("volume %d: the cut counts under number %d, with the change: %d\n", v, counted[v], image[r]) }
    :: atomic { held[r] -> held[r] = 0 } /* its time is over */
#ifdef SEQUENTIAL
    :: atomic { asked[v] == r + 1 && counted[v] != 0 && !holds[v] -> held[r] = 0; holds[v] = 1 }
#endif
    :: atomic { asked[v] == r + 1 && counted[v] != 0 && WHEN_ASKED(v) && !holds[v] && STILL(v, r) ->
        holds[v] = 1;
        assert(number[v] != own_number[r] || !HAS(members[v], OTHER(r)) || preserved[OTHER(r)]); /* a member lacks the cut */
        assert(!preserved[OTHER(r)] || image[OTHER(r)] == image[r]); /* members have preserved different contents */
        printf("volume %d: the cut holds\n", v) }
    od
}

#define IMAGE(v) image[asked[v] - 1]

proctype Coordinator() {
end:
    atomic { ALL_COUNTED && ALL_HOLD && !over ->
        over = 1;
        assert(!IMAGE((first + 1) % VOLUMES) || IMAGE(first)); /* the set has a change without the one before it */ }
}

init {
    atomic {
        if
        :: first = 0
        :: first = 1
        fi;
        serving[0] = 1; serving[2] = 1;
        run Volume(0, 0); run Volume(0, 1); run Volume(1, 2); run Volume(1, 3);
        run Coordinator()
    }
}
