#include "storage/log_state.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace quorate::storage {
namespace {

absl::Status Wrong(const std::string& what) { return absl::DataLossError(what); }

absl::Status Unreadable(const std::string& whose, std::string_view membership) {
  return Wrong(raft::IsOfNewerVersion(membership)
                   ? whose +
                         " names the members in a form that this build does not know: a newer "
                         "version wrote it; start that version or newer"
                   : whose + " holds no readable membership");
}

}  // namespace

absl::StatusOr<LogState> LogState::FromHeader(const SegmentHeader& header) {
  LogState state;
  state.hard_state_ = header.hard_state;
  state.prev_index_ = header.prev_index;
  state.prev_term_ = header.prev_term;
  state.last_index_ = header.prev_index;
  state.generation_ = header.generation;
  if (header.membership_index) {
    if (!raft::DecodeMembership(header.membership)) {
      return Unreadable("the segment's header", header.membership);
    }
    state.memberships_.push_back({header.membership_index, header.membership});
  }
  return state;
}

void LogState::ToHeader(SegmentHeader* header) const {
  header->hard_state = hard_state_;
  header->prev_index = last_index_;
  header->prev_term = last_term();
  header->generation = generation_;
  header->membership_index = raft::Index();
  header->membership.clear();
  if (!memberships_.empty()) {
    header->membership_index = memberships_.back().index;
    header->membership = memberships_.back().bytes;
  }
}

absl::Status LogState::CheckHeader(const SegmentHeader& header) const {
  SegmentHeader mine = header;
  ToHeader(&mine);
  const char* difference = nullptr;
  if (mine.hard_state != header.hard_state) {
    difference = "term or vote";
  } else if (mine.prev_index != header.prev_index || mine.prev_term != header.prev_term) {
    difference = "the entry before its first";
  } else if (mine.membership_index != header.membership_index ||
             mine.membership != header.membership) {
    difference = "the membership in force";
  } else if (mine.generation != header.generation) {
    difference = "the generation";
  }
  if (difference == nullptr) return absl::OkStatus();
  return Wrong(absl::StrCat("the segment's header differs from the log before it in ", difference));
}

absl::Status LogState::ApplyEntry(raft::Index index, raft::Term term, raft::EntryType type,
                                  std::string_view payload) {
  if (index != last_index_ + 1) {
    return Wrong(absl::StrCat("entry ", index.value(), " follows entry ", last_index_.value()));
  }
  if (term < last_term() || !term) {
    return Wrong(absl::StrCat("entry ", index.value(), " of term ", term.value(),
                              " follows one of term ", last_term().value()));
  }
  if (type == raft::EntryType::kMembership) {
    if (!raft::DecodeMembership(payload)) {
      return Unreadable(absl::StrCat("entry ", index.value()), payload);
    }
    memberships_.push_back({index, std::string(payload)});
  }
  if (terms_.empty() || terms_.back().term != term) terms_.push_back({index, term});
  last_index_ = index;
  return absl::OkStatus();
}

absl::Status LogState::ApplyHardState(const raft::HardState& state) {
  const bool same_term = state.term == hard_state_.term;
  if (state.term < hard_state_.term ||
      (same_term && hard_state_.vote && state.vote != hard_state_.vote)) {
    return Wrong(absl::StrCat("term ", state.term.value(), " with vote ", ToHex(state.vote),
                              " follows term ", hard_state_.term.value(), " with vote ",
                              ToHex(hard_state_.vote)));
  }
  hard_state_ = state;
  return absl::OkStatus();
}

absl::Status LogState::ApplyCut(raft::Index from) {
  if (from <= prev_index_ || from > last_index_ + 1) {
    return Wrong(absl::StrCat("a cut from entry ", from.value(), " of a log of [",
                              first_index().value(), ", ", last_index_.value(), "]"));
  }
  while (!terms_.empty() && terms_.back().first >= from) terms_.pop_back();
  while (!memberships_.empty() && memberships_.back().index >= from) memberships_.pop_back();
  last_index_ = from - 1;
  return absl::OkStatus();
}

absl::Status LogState::ApplyGeneration(const Generation& generation) {
  if (raft::IsOfNewerVersion(generation.membership)) {
    return Unreadable(absl::StrCat("generation ", generation.generation), generation.membership);
  }
  if (generation.generation <= generation_.generation || !generation.index ||
      generation.index < prev_index_ || !raft::DecodeMembership(generation.membership)) {
    return Wrong(absl::StrCat("generation ", generation.generation, " at entry ",
                              generation.index.value(), " in a log of [", first_index().value(),
                              ", ", last_index_.value(), "] with generation ",
                              generation_.generation));
  }
  const bool keeps = TermAt(generation.index) == generation.term;
  if (!keeps) {
    terms_.clear();
    memberships_.clear();
    last_index_ = generation.index;
  }
  std::erase_if(memberships_, [&](const auto& m) { return m.index <= generation.index; });
  memberships_.insert(memberships_.begin(), {generation.index, generation.membership});
  DropTermsThrough(generation.index);
  prev_index_ = generation.index;
  prev_term_ = generation.term;
  generation_ = generation;
  begins_with_generation_ = true;
  return absl::OkStatus();
}

void LogState::DropTermsThrough(raft::Index index) {
  // The run that reaches over the border begins behind it now.
  while (terms_.size() > 1 && terms_[1].first <= index + 1) terms_.erase(terms_.begin());
  if (terms_.empty()) return;
  terms_[0].first = std::max(terms_[0].first, index + 1);
  if (terms_[0].first > last_index_) terms_.clear();
}

void LogState::DropThrough(raft::Index index) {
  CHECK(index <= last_index_);
  if (index <= prev_index_) return;
  prev_term_ = *TermAt(index);
  prev_index_ = index;
  begins_with_generation_ = false;
  DropTermsThrough(index);
  // The one in force at `index` stays, as the next segment's header has it.
  while (memberships_.size() > 1 && memberships_[1].index <= index) {
    memberships_.erase(memberships_.begin());
  }
}

bool LogState::ReachesBeforeBeginning(const Record& record) const {
  if (begins_with_generation_ || !prev_index_) return false;
  if (record.type == RecordType::kCut) {
    std::optional<raft::Index> from = DecodeCut(record.body);
    return from && *from <= prev_index_;
  }
  if (record.type == RecordType::kGeneration) {
    std::optional<Generation> generation = DecodeGeneration(record.body);
    return generation && generation->index < prev_index_;
  }
  return false;
}

absl::Status LogState::ApplyRecord(const Record& record) {
  switch (record.type) {
    case RecordType::kEntry: {
      std::optional<EntryHead> entry = DecodeEntryHead(record.body);
      if (!entry) return Wrong("an entry that cannot be read");
      return ApplyEntry(entry->index, entry->term, entry->type, entry->payload);
    }
    case RecordType::kHardState: {
      std::optional<raft::HardState> state = DecodeHardState(record.body);
      if (!state) return Wrong("a hard state that cannot be read");
      return ApplyHardState(*state);
    }
    case RecordType::kCut: {
      std::optional<raft::Index> from = DecodeCut(record.body);
      if (!from) return Wrong("a cut that cannot be read");
      return ApplyCut(*from);
    }
    case RecordType::kGeneration: {
      std::optional<Generation> generation = DecodeGeneration(record.body);
      if (!generation) return Wrong("a generation that cannot be read");
      return ApplyGeneration(*generation);
    }
    case RecordType::kMark:
    case RecordType::kFiller:
      return absl::OkStatus();
  }
  return Wrong(absl::StrCat("a record of unknown type ", static_cast<int>(record.type)));
}

std::optional<raft::Term> LogState::TermAt(raft::Index index) const {
  if (index == prev_index_) return prev_term_;
  if (index < prev_index_ || index > last_index_) return std::nullopt;
  auto after = std::upper_bound(terms_.begin(), terms_.end(), index,
                                [](raft::Index i, const TermRun& run) { return i < run.first; });
  CHECK(after != terms_.begin());
  return std::prev(after)->term;
}

std::vector<std::pair<raft::Index, raft::Membership>> LogState::memberships() const {
  std::vector<std::pair<raft::Index, raft::Membership>> decoded;
  for (const EncodedMembership& m : memberships_) {
    decoded.emplace_back(m.index, *raft::DecodeMembership(m.bytes));
  }
  return decoded;
}

}  // namespace quorate::storage
