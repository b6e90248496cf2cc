// Which message answers which. Who asks gets exactly one answer; where none can come any more,
// since a connection is gone, its driver gives one that failed.
#pragma once

#include <array>
#include <optional>
#include <utility>

#include "ublkd/replication/message.h"

namespace ublkd::replication {

/// What members and clients ask each other, and the answer to it; but for kRequest, whose client
/// sends again what is not answered.
inline constexpr std::array<std::pair<MessageType, MessageType>, 11> kQuestions{{
    {MessageType::kReplicate, MessageType::kReplicated},
    {MessageType::kConfirm, MessageType::kConfirmed},
    {MessageType::kAdopt, MessageType::kAdopted},
    {MessageType::kProbe, MessageType::kProbed},
    {MessageType::kCopy, MessageType::kCopied},
    {MessageType::kFetch, MessageType::kFetched},
    {MessageType::kMark, MessageType::kMarked},
    {MessageType::kExamine, MessageType::kExamined},
    {MessageType::kFinish, MessageType::kFinished},
    {MessageType::kHealth, MessageType::kHealthy},
    {MessageType::kPing, MessageType::kPong},
}};

constexpr bool is_answer(MessageType type) {
    if (type == MessageType::kAnswer || type == MessageType::kMoved) return true;
    for (const auto& [question, answer] : kQuestions) {
        if (answer == type) return true;
    }
    return false;
}

/// nullopt: nobody waits for an answer that would have to be told that there is none.
constexpr std::optional<MessageType> answer_of(MessageType question) {
    for (const auto& [asked, answer] : kQuestions) {
        if (asked == question) return answer;
    }
    return std::nullopt;
}

/// What is the same in each answer to `question`.
inline Message answer_to(const Message& question, MessageType type) {
    Message answer;
    answer.type = type;
    answer.kind = question.kind;
    answer.volume = question.volume;
    answer.from = question.to;
    answer.to = question.from;
    answer.attachment = question.attachment;
    answer.number = question.number;
    answer.id = question.id;
    answer.token = question.token;
    answer.cut = question.cut;
    answer.value = question.value;
    return answer;
}

/// To a client's `question`: not here.
inline Message moved(const Message& question) { return answer_to(question, MessageType::kMoved); }

/// To `question`: its connection is gone.
inline Message no_answer(const Message& question) {
    Message answer = answer_to(question, *answer_of(question.type));
    answer.failed = true;
    answer.error = Error{Errc::kClosed, 0, "the connection"};
    return answer;
}

}  // namespace ublkd::replication
