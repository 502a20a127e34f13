//! The planted bugs: each is compiled in by `--cfg wardline_mutant="name"`, and each must be found.

/// Every planted bug with what it breaks. `core/sim/mutants.sh` builds one after the other and
/// fails if the simulator does not find it; it also fails if this list and the core differ.
pub const MUTANTS: &[(&str, &str)] = &[
    ("own_run_is_sent", "a sender is sent its own lines"),
    ("own_until_stays", "what is a reader's own is known no further than before"),
    ("stale_id", "a late completion is taken for the slot's new connection"),
    ("warning_inside", "a warning stands inside a message"),
    ("begun_is_lost", "a jump forgets the rest of the message that was begun"),
    ("sent_one_less", "a byte that was sent is sent again"),
    ("rest_is_forgotten", "after a short send nobody comes back for the rest"),
    ("jump_in_flight", "a cursor jumps while the kernel still reads"),
    ("freed_in_flight", "what a send under way reads is given back"),
    ("log_never_freed", "links stay when every reader is past them"),
    ("link_freed_early", "a link is freed while a reader stands in it"),
    ("block_leaked", "a closed connection keeps its blocks"),
    ("gap_is_short", "a gap names one message too few"),
    ("backlog_overtaken", "new input is taken before the backlog"),
    ("last_line_lost", "a last line without its ending is dropped"),
    ("skip_ends_early", "the rest of a line over the limit is taken for a line"),
    ("never_resumed", "a paused connection is never read again"),
    ("starved_for_ever", "who waited for memory is not told that there is some"),
    ("farewell_before_flush", "the last words come before what is queued"),
    ("rate_not_charged", "messages cost nothing"),
    ("throttle_ignored", "a struck address pays no more than others"),
    ("stuck_is_kept", "a reader that never reads is never acted against"),
    ("patient_for_ever", "readers that wait for more wait until more comes"),
    ("idle_never_acts", "nobody is ever idle"),
    ("unfinished_not_armed", "a line may stay unfinished for ever"),
    ("ban_evicted", "a full table forgets a ban"),
];
