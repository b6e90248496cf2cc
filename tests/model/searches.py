"""What tests/model/run searches: each model within bounds in which it is clean, and with a rule taken out, which has to show a
violation (or, where the model does not need that rule, is known to show none). CI takes those that are not long."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Search:
    model: str
    bounds: str  # -D switches, without the -D
    off: str = ""  # the switch that takes a rule out; "": all rules are in
    rule: str = ""  # and which one that is
    needed: bool = True  # False: within these bounds nothing is violated without it
    long: bool = False  # only in ./run soak model
    minutes_max: float = 60

    @property
    def name(self):
        return f"{self.model} {self.bounds} {self.off}".rstrip()


def clean(model, bounds, **more):
    return Search(model, bounds, **more)


def off(model, bounds, switch, rule, **more):
    return Search(model, bounds, switch, rule, **more)


CUT = "MEMBERS=2 NUMBERS=5 FLUSHES DEATHS=1 CUTS=1"
CUTS = "MEMBERS=2 NUMBERS=5 FLUSHES DEATHS=1 CUTS=2"
THREE_CUTS = "MEMBERS=2 NUMBERS=5 FLUSHES CUTS=3"
LATE = "MEMBERS=2 NUMBERS=4 WRITES=2 DEATHS=1 LATE"
ONE_LOST = "MEMBERS=3 START=3 NUMBERS=3 DEATHS=1 NO_READS"
ONE_LOST_LONGER = "MEMBERS=3 START=3 NUMBERS=5 NO_READS"

MEMBERSHIP = [
    clean("membership", CUTS),
    clean("membership", THREE_CUTS),
    clean("membership", "MEMBERS=2 NUMBERS=5 WRITES=2 FLUSHES CUTS=1"),
    clean("membership", "MEMBERS=2 NUMBERS=5 HANDOVER FLUSHES DEATHS=1 CUTS=1"),
    clean("membership", "MEMBERS=2 START=1 NUMBERS=5 FLUSHES DEATHS=1 CUTS=1"),
    clean("membership", ONE_LOST),
    clean("membership", LATE),
    clean("membership", ONE_LOST_LONGER, long=True),
    clean("membership", "MEMBERS=2 NUMBERS=6 FLUSHES DEATHS=1 CUTS=2", long=True),
    clean("membership", "MEMBERS=2 NUMBERS=6 WRITES=2 FLUSHES CUTS=2", long=True),
    clean("membership", "MEMBERS=2 NUMBERS=4 WRITES=2 FLUSHES DEATHS=1 CUTS=1 LATE", long=True),
    clean("membership", "MEMBERS=3 NUMBERS=4", long=True),
    clean("membership", "MEMBERS=3 NUMBERS=3 DEATHS=1", long=True),
    clean("membership", "MEMBERS=3 NUMBERS=3 FLUSHES CUTS=1", long=True),
    clean("membership", "MEMBERS=3 START=3 NUMBERS=3 FLUSHES DEATHS=1 CUTS=1", long=True),
    off("membership", LATE, "NO_NUMBER_CHECK", "R1: what comes under another number, or not from the primary, is refused"),
    off("membership", CUT, "NO_ACK_ALL", "R2: acknowledged when all have it"),
    off("membership", CUT, "NO_CONFIRM", "R2: a read is confirmed by all"),
    off("membership", CUT, "NO_RANGE_LOCK", "R3: range locks"),
    off("membership", CUT, "NO_JOINT", "R4: the old and the proposed membership acknowledge"),
    off("membership", CUT, "NO_PENDING", "R4: a proposal is stored before it is sent"),
    off("membership", CUT, "NO_LOST_FOR_GOOD", "R5: a member that is being left out confirms nothing more"),
    off("membership", CUT, "NO_KEEPER_MAP", "R5: a lost member's dirty map begins as the keeper's activity map"),
    off("membership", CUT, "NO_UNION_COPY", "R7: the union of the activity maps is copied"),
    off("membership", CUT, "NO_COPY_ACTIVITY", "R7: a copy sets its target's activity bit"),
    off("membership", ONE_LOST, "NO_COPY_DIRTY", "R7, R11: a copy marks its target's maps for lost members"),
    off("membership", THREE_CUTS, "NO_COPY_DURABLE", "R7: a copy is durable before it counts"),
    off("membership", LATE, "NO_CLOSE", "R7: members close what is older before they answer"),
    off("membership", CUTS, "NO_BOOT_CHECK", "R9: a restart in another boot is not trusted"),
    off("membership", CUTS, "NO_LOSS_COUNT", "R9: the record carries the loss count"),
    off("membership", CUTS, "NO_BITS_DURABLE", "R10: bits are cleared when their writes are durable on all"),
    off("membership", CUTS, "NO_JOIN_FLUSH", "R12: a replica that joins has flushed what it got"),
    off("membership", CUTS, "NO_ACK_NUMBER", "R2: an acknowledgement counts under its number alone", needed=False, long=True),
    off("membership", ONE_LOST_LONGER, "NO_MAPS_COPIED", "R11: maps of lost members are copied at a rejoin", needed=False, long=True),
    off("membership", ONE_LOST_LONGER, "NO_LOSS_BOUND", "R11: a map is bound to the loss that it began with", needed=False, long=True),
]

R_DEATHS = "NUMBERS=2 DEATHS=2"
R_WRITES = "NUMBERS=3 WRITES=3"
R_JOIN = "NUMBERS=4"
R_CUTS = "NUMBERS=3 CUTS=2"
R_DURABLE = "NUMBERS=3 CUTS=2 DURABLE"

RETRIES = [
    clean("retries", R_DEATHS),
    clean("retries", R_WRITES),
    clean("retries", R_JOIN),
    clean("retries", R_CUTS),
    clean("retries", R_DURABLE),
    off("retries", R_DEATHS, "NO_ACK_ALL", "R2: acknowledged when all have it"),
    off("retries", R_DEATHS, "NO_RANGE_LOCK", "R3: range locks"),
    off("retries", R_DEATHS, "NO_IDS", "R8: a known id is not applied again"),
    off("retries", R_DEATHS, "NO_NOTED_FIRST", "R8: a change is noted before it goes to the disk"),
    off("retries", R_DEATHS, "NO_IDS_AGREE", "R8: what not both have applied is perhaps applied after a take-over"),
    off("retries", R_DEATHS, "NO_OVERWRITTEN", "R8: a retry leaves out what was written over it"),
    off("retries", R_DEATHS, "NO_MARK_OVERWRITES", "R8: so does one where the member was only told that it has what is over it"),
    off("retries", R_DEATHS, "NO_DOUBTS_IN_ORDER", "R8: of two that are perhaps applied the later one comes again first"),
    off("retries", R_DEATHS, "NO_TABLE_KEPT", "R8: ids outlive the process"),
    off("retries", R_JOIN, "NO_JOIN_IDS", "R8: ids are copied when a member joins"),
    off("retries", R_WRITES, "NO_SESSION_CLOSED", "R8: a session is closed before its successor is served"),
    off("retries", R_DURABLE, "NO_BOOT_CHECK", "R8, R9: who lost its ids is not primary"),
    off("retries", R_DURABLE, "NO_TABLE_LOSS", "R8, R9: all lost their ids: sessions end, or nobody is served"),
    off("retries", R_DURABLE, "RESENT", "R8, R9: they end, and it is not enough that each client has sent again"),
]

D_TWO = "MEMBERS=2 NUMBERS=4 DEATHS=1"
D_CUT = "MEMBERS=2 NUMBERS=3 CUTS=1"
D_THREE = "MEMBERS=3 NUMBERS=2"

DETACH = [
    clean("detach", D_TWO),
    clean("detach", D_CUT),
    clean("detach", D_THREE),
    off("detach", D_TWO, "NO_TOKENS", "R15: a primary takes nothing of an attachment that is not in its record"),
    off("detach", D_TWO, "NO_STORED", "R15: done when the member that will serve has stored the record"),
    off("detach", D_TWO, "NO_RECORD_STORED", "R15: stored durably"),
    off("detach", D_TWO, "NO_DRAIN", "R15: and has drained that attachment's writes"),
    off("detach", D_TWO, "NO_SUCCESSOR_TOKEN", "R15: the successor is served under a record that has it", needed=False),
    off("detach", D_TWO, "NO_WAIT", "R15: with a sole member out of reach it waits"),
    off("detach", D_TWO, "NO_CONFIRM", "R2: a read is confirmed by all"),
]

T_TWO = "HOSTS=2 NUMBERS=4"
T_THREE = "HOSTS=3 NUMBERS=4 FAILS=3"
T_WRITES = "HOSTS=3 NUMBERS=5 WRITES=2"

RESTORE = [
    clean("restore", T_TWO),
    clean("restore", T_THREE),
    clean("restore", T_WRITES),
    off("restore", T_TWO, "NO_FREEZE", "R16: a restored store authorizes nothing"),
    off("restore", T_TWO, "NO_GENERATION", "R16: it knows itself that it was restored"),
    off("restore", T_TWO, "NO_WAIT", "R16: until each host of a record has reported"),
    off("restore", T_THREE, "NO_FOLLOWING", "R16: of the newest record that was reported, and not of the one in the backup"),
    off("restore", T_TWO, "NO_GREATEST", "R16: the greatest number wins"),
]

C_TWO = "NUMBERS=3 TRIES=3"

CUTTING = [
    clean("cuts", C_TWO),
    clean("cuts", "NUMBERS=4 TRIES=4", long=True),
    off("cuts", C_TWO, "NO_DRAIN", "R18: what was under way has ended before a cut"),
    off("cuts", C_TWO, "NO_HOLD", "R18: what comes later waits"),
    off("cuts", C_TWO, "SEQUENTIAL", "R18: until all volumes have been cut"),
    off("cuts", C_TWO, "NO_CHECK", "R18: a set counts when each primary was asked once more"),
    off("cuts", C_TWO, "NO_CONFIRM", "R18: and its members have confirmed its number"),
    off("cuts", C_TWO, "NO_NUMBER", "R18: the one under which the cut was made"),
]

SEARCHES = MEMBERSHIP + RETRIES + DETACH + RESTORE + CUTTING
