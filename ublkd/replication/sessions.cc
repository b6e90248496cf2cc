// Whose requests are served: those of the record's attachments (R15), of clients that know of each
// loss (R9), and that are still there; and when an attachment that was forced off is done.
#include <algorithm>
#include <utility>

#include "ublkd/base/fault_injection.h"
#include "ublkd/replication/node.h"

namespace ublkd::replication {

/// The host's own requests have no attachment.
bool Node::attached(AttachmentId attachment) const {
    const auto& known = record_->attachments;
    return !attachment || std::find(known.begin(), known.end(), attachment) != known.end();
}

/// Why a request of this client is not served; nullopt: it is.
std::optional<Error> Node::session_over(const Op& op) const {
    if (!is_request(op) || op.internal) return std::nullopt;
    if (op.losses < record_->loss_count && !faults::rule_off("rule.losses_presented"))
        return Error{Errc::kLost, 0, "unflushed writes may be gone"};
    if (!attached(op.attachment) && !faults::rule_off("rule.attachment_checked"))
        return Error{Errc::kNotPermitted, 0, "the attachment was taken from the volume"};
    return std::nullopt;
}

Result<void> Node::set_attachments(std::vector<AttachmentId> attachments) {
    if (role_ != Role::kServing && role_ != Role::kPreparing)
        return fail(Errc::kBusy, "attachments: not the primary");
    Membership with = *record_;
    with.attachments = attachments;
    TRY(validate(with));
    attachments_ = std::move(attachments);
    reconsider();
    run();
    return {};
}

bool Node::fenced(AttachmentId attachment) {
    if (role_ != Role::kServing || adopting_ || proposal_) return false;
    if (attached(attachment)) return false;
    bool open = false;
    ops_.for_each([&](const Op& op) { open = open || op.attachment == attachment; });
    return !open || faults::rule_off("rule.fence_drains");
}

bool Node::on_asker_gone(std::uint64_t route) {
    bool over = true;
    ops_.for_each([&](Op& op) {
        if (op.client_route != route || !is_request(op) || op.internal ||
            op.step == Step::kLingering)
            return;
        const bool waits = op.step == Step::kQueued || op.step == Step::kRegion ||
                           op.step == Step::kBehindCut || op.step == Step::kLock ||
                           op.step == Step::kBuffer;
        if (waits || (op.step == Step::kHeld && op.kind == OpKind::kHold)) {
            free_op(op);
        } else {
            over = false;
        }
    });
    run();
    return over;
}

/// A record without them was stored: what has not begun of theirs never does, and nothing is held
/// for them.
void Node::end_sessions() {
    ops_.for_each([&](Op& op) {
        const bool waits = op.step == Step::kRegion || op.step == Step::kLock ||
                           op.step == Step::kBehindCut || op.step == Step::kDraining;
        if (op.dropped || (!waits && op.step != Step::kHeld)) return;
        const std::optional<Error> over = session_over(op);
        if (!over) return;
        if (op.step == Step::kHeld)
            free_op(op);
        else
            fail_op(op, *over);
    });
}

}  // namespace ublkd::replication
