#include "tests/storage/log_harness.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quorate::storage {

LogOptions SmallLogOptions(size_t segment_bytes) {
  LogOptions options;
  options.directory = kLogDirectory;
  options.cluster = kLogCluster;
  options.store = kLogStore;
  options.segment_bytes = segment_bytes;
  return options;
}

raft::Membership MakeMembership(uint64_t salt) {
  raft::Membership membership;
  membership.cluster = kLogCluster;
  for (uint64_t i = 1; i <= 3; ++i) {
    raft::Member member;
    member.store = StoreId(salt * 10 + i);
    member.name = absl::StrCat("node-", salt, "-", i);
    member.address = absl::StrCat("127.0.0.1:", 7000 + i);
    member.voter = true;
    membership.members.push_back(std::move(member));
  }
  return membership;
}

raft::EntryPtr MakeEntry(uint64_t index, uint64_t term, std::string payload) {
  raft::Entry entry;
  entry.index = raft::Index(index);
  entry.term = raft::Term(term);
  entry.type = payload.empty() ? raft::EntryType::kNoop : raft::EntryType::kCommand;
  entry.log_time_ms = 1000 * term + index;
  entry.wall_time_ms = -static_cast<int64_t>(index);
  entry.payload = std::move(payload);
  return std::make_shared<const raft::Entry>(std::move(entry));
}

raft::EntryPtr MakeMembershipEntry(uint64_t index, uint64_t term, uint64_t salt) {
  raft::Entry entry = *MakeEntry(index, term, raft::EncodeMembership(MakeMembership(salt)));
  entry.type = raft::EntryType::kMembership;
  return std::make_shared<const raft::Entry>(std::move(entry));
}

std::ostream& operator<<(std::ostream& out, const LogContent& content) {
  out << "term " << content.hard_state.term.value() << " vote " << content.hard_state.vote.value()
      << " generation " << content.generation << " after " << content.prev_index << "/"
      << content.prev_term;
  if (content.prev_membership) {
    out << " with the membership of " << content.prev_membership->first.value();
  }
  out << " entries";
  for (const raft::Entry& entry : content.entries) {
    out << " " << entry.index.value() << "/" << entry.term.value() << ":" << entry.payload.size();
  }
  return out;
}

void LogContent::DropThrough(uint64_t index) {
  while (prev_index < index && !entries.empty()) {
    const raft::Entry& first = entries.front();
    if (first.type == raft::EntryType::kMembership) {
      prev_membership.emplace(first.index, *raft::DecodeMembership(first.payload));
    }
    prev_index = first.index.value();
    prev_term = first.term.value();
    entries.erase(entries.begin());
  }
}

LogContent ReadAll(Log* log, const RecoveredLog& recovered) {
  LogContent content;
  content.hard_state = recovered.hard_state;
  content.generation = recovered.generation;
  content.prev_index = recovered.first_index.value() - 1;
  EXPECT_EQ(recovered.first_index, log->first_index());
  auto before = log->Read(recovered.first_index - 1, recovered.last_index, 3000);
  EXPECT_TRUE(before.ok() && before->empty()) << "an entry before the first";
  // In small answers, as a follower far behind gets them.
  for (raft::Index next = recovered.first_index; next <= recovered.last_index;) {
    auto entries = log->Read(next, recovered.last_index, 3000);
    EXPECT_TRUE(entries.ok()) << entries.status();
    if (!entries.ok() || entries->empty()) {
      ADD_FAILURE() << "nothing at " << next.value();
      break;
    }
    for (const raft::EntryPtr& entry : *entries) {
      EXPECT_EQ(entry->index, next);
      content.entries.push_back(*entry);
      ++next;
    }
  }
  EXPECT_EQ(content.last_index(), recovered.last_index.value());
  // The window is the end of the same, and the memberships are in it.
  EXPECT_EQ(recovered.window_prev_index + recovered.window.size(), recovered.last_index);
  const auto entry_at = [&](raft::Index index) -> const raft::Entry& {
    return content.entries.at(index.value() - recovered.first_index.value());
  };
  for (const raft::EntryPtr& entry : recovered.window) EXPECT_EQ(*entry, entry_at(entry->index));
  // With a small window the term of the entry before the first is not told, and 0 here.
  if (recovered.window_prev_index < recovered.first_index) {
    content.prev_term = recovered.window_prev_term.value();
    EXPECT_EQ(recovered.window_prev_log_time_ms, std::nullopt);
  } else {
    EXPECT_EQ(recovered.window_prev_log_time_ms, entry_at(recovered.window_prev_index).log_time_ms);
    EXPECT_EQ(recovered.window_prev_term, entry_at(recovered.window_prev_index).term);
  }
  std::vector<std::pair<raft::Index, raft::Membership>> memberships;
  if (!recovered.memberships.empty() &&
      recovered.memberships.front().first < recovered.first_index) {
    content.prev_membership = recovered.memberships.front();
    memberships.push_back(*content.prev_membership);
  }
  for (const raft::Entry& entry : content.entries) {
    if (entry.type != raft::EntryType::kMembership) continue;
    memberships.emplace_back(entry.index, *raft::DecodeMembership(entry.payload));
  }
  EXPECT_EQ(memberships, recovered.memberships);
  return content;
}

absl::StatusOr<LogContent> OpenAndReadAll(Disk* disk, const LogOptions& options,
                                          raft::Index applied) {
  return OpenAndReadAll(disk, options, [&](uint64_t) { return applied; });
}

absl::StatusOr<LogContent> OpenAndReadAll(Disk* disk, const LogOptions& options,
                                          const Log::StateOpener& open_state) {
  auto opened = Log::Open(disk, options, open_state);
  if (!opened.ok()) return opened.status();
  return ReadAll(opened->first.get(), opened->second);
}

LogWriter::LogWriter(Disk* disk, LogOptions options) : disk_(disk), options_(std::move(options)) {}

bool LogWriter::Done(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
  return status_.ok();
}

bool LogWriter::Create() {
  auto log = Log::Create(disk_, options_);
  if (!log.ok()) return Done(log.status());
  log_ = *std::move(log);
  created_ = true;
  return true;
}

Log::StateOpener LogWriter::open_state() const {
  return [applied = applied_](uint64_t generation) -> absl::StatusOr<raft::Index> {
    auto found = applied.find(generation);
    if (found != applied.end()) return raft::Index(found->second);
    if (generation == 0) return raft::Index();
    return absl::NotFoundError(absl::StrCat("there is no state-", generation));
  };
}

bool LogWriter::Open(const Log::StateOpener& open_state) {
  auto opened = Log::Open(disk_, options_, open_state);
  if (!opened.ok()) return Done(opened.status());
  log_ = std::move(opened->first);
  states_ = {ReadAll(log_.get(), opened->second)};
  synced_ = 0;
  prev_most_ = prev_least_ = states_.back().prev_index;
  const uint64_t generation = states_.back().generation;
  applied_[generation] = open_state(generation)->value();
  created_ = true;
  term_ = std::max<uint64_t>(opened->second.hard_state.term.value(), 1);
  return true;
}

bool LogWriter::Reopen() {
  if (!status_.ok()) return false;
  log_.reset();
  auto opened = Log::Open(disk_, options_, open_state());
  if (!opened.ok()) return Done(opened.status());
  log_ = std::move(opened->first);
  LogContent found = ReadAll(log_.get(), opened->second);
  ExpectPossible(found);
  prev_least_ = std::max(prev_least_, found.prev_index);
  states_.push_back(std::move(found));
  synced_ = states_.size() - 1;
  return true;
}

bool LogWriter::Apply(raft::Persist persist) {
  if (!status_.ok()) return false;
  // Before the write: a crash in its middle may leave any of these.
  LogContent next = states_.back();
  if (persist.cut_from && persist.cut_from->value() <= next.last_index()) {
    next.entries.resize(persist.cut_from->value() - 1 - next.prev_index);
    states_.push_back(next);
  }
  if (persist.hard_state) {
    next.hard_state = *persist.hard_state;
    states_.push_back(next);
  }
  for (const raft::EntryPtr& entry : persist.entries) {
    next.entries.push_back(*entry);
    states_.push_back(next);
  }
  return Done(log_->Append(persist));
}

bool LogWriter::Entries(int count, size_t payload_bytes) {
  raft::Persist persist;
  uint64_t index = content().last_index();
  for (int i = 0; i < count; ++i) {
    ++index;
    persist.entries.push_back(
        MakeEntry(index, term_, std::string(payload_bytes, static_cast<char>('a' + index % 26))));
  }
  return Apply(std::move(persist));
}

bool LogWriter::Membership(uint64_t salt) {
  raft::Persist persist;
  persist.entries.push_back(MakeMembershipEntry(content().last_index() + 1, term_, salt));
  return Apply(std::move(persist));
}

bool LogWriter::Vote(uint64_t term, uint64_t for_store) {
  raft::Persist persist;
  persist.hard_state = raft::HardState{raft::Term(term), StoreId(for_store)};
  term_ = term;
  return Apply(std::move(persist));
}

bool LogWriter::Cut(uint64_t from) {
  raft::Persist persist;
  persist.cut_from = raft::Index(from);
  return Apply(std::move(persist));
}

bool LogWriter::CutPrefix(uint64_t through, uint64_t keep_bytes) {
  if (!status_.ok()) return false;
  prev_most_ = std::max(prev_most_, through);
  uint64_t& applied = applied_[content().generation];
  applied = std::max(applied, through);
  absl::StatusOr<raft::Index> first = log_->CutPrefix(raft::Index(through), keep_bytes);
  if (!Done(first.status())) return false;
  EXPECT_EQ(*first, log_->first_index());
  EXPECT_LE(first->value() - 1, std::max(through, content().prev_index));
  EXPECT_GE(first->value() - 1, prev_least_);
  prev_least_ = first->value() - 1;
  return true;
}

bool LogWriter::Install(uint64_t generation, uint64_t index, uint64_t term, uint64_t salt) {
  if (!status_.ok()) return false;
  LogContent next = states_.back();
  next.DropThrough(index);
  const bool kept = next.prev_index == index && next.prev_term == term;
  if (!kept) next.entries.clear();
  next.generation = generation;
  next.prev_index = index;
  next.prev_term = term;
  next.prev_membership.emplace(raft::Index(index), MakeMembership(salt));
  states_.push_back(next);
  prev_most_ = std::max(prev_most_, index);
  applied_[generation] = index;  // its database is durable before the record
  raft::Persist persist;
  persist.install.emplace();
  persist.install->generation = generation;
  persist.install->snapshot.index = raft::Index(index);
  persist.install->snapshot.term = raft::Term(term);
  persist.install->snapshot.membership = MakeMembership(salt);
  if (!Done(log_->Append(persist)) || !Sync()) return false;
  prev_least_ = std::max(prev_least_, index);
  return true;
}

bool LogWriter::Overrule(uint64_t from, uint64_t term, int count, size_t payload_bytes) {
  raft::Persist persist;
  persist.cut_from = raft::Index(from);
  persist.hard_state = raft::HardState{raft::Term(term), StoreId()};
  term_ = term;
  for (int i = 0; i < count; ++i) {
    persist.entries.push_back(
        MakeEntry(from + static_cast<uint64_t>(i), term, std::string(payload_bytes, 'X')));
  }
  return Apply(std::move(persist));
}

bool LogWriter::Sync() {
  if (!status_.ok()) return false;
  if (!Done(log_->Sync())) return false;
  synced_ = states_.size() - 1;
  return true;
}

bool LogWriter::Mark() {
  if (!status_.ok()) return false;
  if (!Done(log_->WriteMark())) return false;
  synced_ = states_.size() - 1;
  return true;
}

void LogWriter::ExpectPossible(const LogContent& found) const {
  EXPECT_GE(found.prev_index, prev_least_) << "what was removed is back";
  for (size_t i = synced_; i < states_.size(); ++i) {
    LogContent state = states_[i];
    if (found.prev_index <= prev_most_) state.DropThrough(found.prev_index);
    if (state == found) return;
  }
  ADD_FAILURE() << "found " << found << "\nsynced " << states_[synced_] << "\nwritten "
                << states_.back();
}

}  // namespace quorate::storage
