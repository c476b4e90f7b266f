#include "tests/sim/store_checker.h"

#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "storage/state_sessions.h"
#include "tests/sim/machine.h"

namespace quorate::sim {
namespace {

// What answers say beside their codes; other metadata is wording.
constexpr const char* kFactNames[] = {"current_revision", "compacted_revision", "expired_through",
                                      "ttl_id"};

class Facts {
 public:
  Facts& Number(uint64_t number) {
    bytes_.append(reinterpret_cast<const char*>(&number), sizeof number);
    return *this;
  }
  Facts& Text(const std::string& text) {
    Number(text.size());
    bytes_ += text;
    return *this;
  }
  uint64_t Hash() const { return XXH3_64bits(bytes_.data(), bytes_.size()); }

 private:
  std::string bytes_;
};

std::string WrongVersion(const storage::Item& shown, const StoreModel::Version& wanted) {
  if (shown.mod_revision.value() != wanted.revision) {
    return "shows " + shown.key + " of revision " + ToString(shown.mod_revision) + ", not of " +
           std::to_string(wanted.revision);
  }
  if (shown.value != wanted.value || shown.is_text != wanted.is_text ||
      shown.create_revision.value() != wanted.create_revision || shown.version != wanted.version ||
      shown.ttl != wanted.ttl) {
    return "shows " + shown.key + " of revision " + ToString(shown.mod_revision) +
           " as another one than was written";
  }
  return "";
}

}  // namespace

uint64_t StoreChecker::FactsOf(const v1::Answer& answer) {
  Facts facts;
  facts.Number(static_cast<uint64_t>(static_cast<int64_t>(answer.code()))).Text(answer.reason());
  facts.Number(answer.revision()).Number(answer.succeeded() ? 1 : 0);
  for (const char* name : kFactNames) {
    const auto found = answer.metadata().find(name);
    facts.Text(found == answer.metadata().end() ? "-" : found->second);
  }
  for (const v1::OperationResult& result : answer.results()) {
    facts.Number(result.create_revision()).Number(result.version()).Number(result.deleted());
    facts.Number(result.count()).Number(result.ttl_id()).Number(result.ttl_ms());
    facts.Number(static_cast<uint64_t>(result.items_size()));
    for (const v1::ReadItem& item : result.items()) {
      facts.Text(item.key()).Text(item.value()).Number(static_cast<uint64_t>(item.value_kind()));
      facts.Number(item.create_revision()).Number(item.mod_revision()).Number(item.version());
      facts.Number(item.ttl_id());
    }
  }
  return facts.Hash();
}

// --- Sessions ---

void SessionModel::OnMembership(const raft::Membership& membership) {
  membership_ = membership;
  const size_t removed = std::erase_if(sessions_, [this](const auto& each) {
    return membership_.Find(StoreId(each.first)) == nullptr;
  });
  report_->Count(Reached::kSessionRemoved, removed);
}

storage::Refusal SessionModel::Open(const v1::OpenSession& open, bool* again) {
  *again = false;
  if (membership_.Find(StoreId(open.store())) == nullptr) return storage::Refusal::kNotMember;
  const auto found = sessions_.find(open.store());
  if (found != sessions_.end()) {
    const Session& session = found->second;
    *again = open.boot() == session.boot && open.nonce() == session.nonce;
    if (*again) return storage::Refusal::kNone;
    if (open.boot() < session.boot) return storage::Refusal::kOlderBoot;
    if (open.boot() == session.boot) return storage::Refusal::kOtherNonce;
    report_->Count(Reached::kSessionReplaced);
  }
  Session fresh;
  fresh.boot = open.boot();
  fresh.nonce = open.nonce();
  sessions_[open.store()] = std::move(fresh);
  return storage::Refusal::kNone;
}

storage::Refusal SessionModel::Check(const v1::SessionPosition& position) const {
  const auto found = sessions_.find(position.store());
  if (found == sessions_.end() || found->second.boot != position.boot() ||
      found->second.nonce != position.nonce()) {
    return storage::Refusal::kUnknownSession;
  }
  const Session& session = found->second;
  const uint64_t sequence = position.sequence();
  if (sequence == 0 || sequence > session.last + 1) return storage::Refusal::kGap;
  const uint64_t through =
      std::max(session.answered, std::min(position.answered_through(), session.last));
  if (sequence == session.last + 1 && sequence - through > storage::kUnansweredMax) {
    return storage::Refusal::kTooManyUnanswered;
  }
  return storage::Refusal::kNone;
}

bool SessionModel::IsRepeat(const v1::SessionPosition& position) const {
  return position.sequence() <= sessions_.at(position.store()).last;
}

std::optional<uint64_t> SessionModel::KeptAnswer(const v1::SessionPosition& position) const {
  const Session& session = sessions_.at(position.store());
  if (position.sequence() <= session.answered) return std::nullopt;
  return session.answers.at(position.sequence());
}

void SessionModel::Take(const v1::SessionPosition& position, std::optional<uint64_t> answer) {
  Session& session = sessions_.at(position.store());
  const uint64_t through = std::min(position.answered_through(), position.sequence() - 1);
  if (through > session.answered) {
    session.answered = through;
    session.answers.erase(session.answers.begin(), session.answers.upper_bound(through));
  }
  if (!answer) return;
  session.last = position.sequence();
  session.answers[session.last] = *answer;
}

// --- The log ---

StoreChecker::StoreChecker(const Plan& plan, const EventQueue* events, Failure* failure,
                           Report* report)
    : plan_(plan),
      events_(events),
      failure_(failure),
      report_(report),
      sessions_(report),
      model_(LimitsOf(plan)),
      changes_(2) {}

StoreLimits StoreChecker::LimitsOf(const Plan& plan) {
  StoreLimits limits;
  limits.request_ids_max = plan.request_ids;
  limits.request_age_ms = 8000;
  return limits;
}

void StoreChecker::FailAt(const raft::Entry& entry, const std::string& what) {
  const std::string note = command_.note().empty() ? "" : " (operation " + command_.note() + ")";
  Fail("entry " + ToString(entry.index) + note + ": " + what);
}

void StoreChecker::OnBegunAgain() {
  if (model_.revision() != 1) return Fail("birth begins again after a client's write");
  applied_ = raft::Index();
  sessions_ = SessionModel(report_);
  model_ = StoreModel(LimitsOf(plan_));
  shown_.clear();
}

bool StoreChecker::Replay(const raft::Entry& entry, const storage::Applied* outcome,
                          const std::string* kept) {
  if (entry.index != applied_ + 1) {
    Fail("entry " + ToString(entry.index) + " is applied, and nobody has applied the one after " +
         ToString(applied_));
    return false;
  }
  applied_ = entry.index;
  model_.Advance(entry.log_time_ms);
  if (entry.type == raft::EntryType::kMembership) {
    const std::optional<raft::Membership> membership = raft::DecodeMembership(entry.payload);
    CHECK(membership.has_value());
    cluster_ = membership->cluster;
    sessions_.OnMembership(*membership);
  }
  if (entry.type != raft::EntryType::kCommand) return false;
  CHECK(command_.ParseFromString(entry.payload));
  if (command_.has_open_session()) {
    bool again = false;
    const storage::Refusal refusal = sessions_.Open(command_.open_session(), &again);
    answer_.Clear();
    answer_.set_revision(model_.revision());
    const bool refused = refusal != storage::Refusal::kNone;
    Compare(entry, outcome, refusal, again,
            refused ? std::nullopt : std::optional(FactsOf(answer_)));
    return false;
  }
  const v1::SessionPosition& position = command_.session();
  const storage::Refusal refusal = sessions_.Check(position);
  if (refusal != storage::Refusal::kNone) {
    report_->Count(Reached::kSessionRefused);
    Compare(entry, outcome, refusal, false, std::nullopt);
    return false;
  }
  if (sessions_.IsRepeat(position)) {
    Compare(entry, outcome, refusal, true, sessions_.KeptAnswer(position));
    sessions_.Take(position, std::nullopt);
    return false;
  }
  if (outcome != nullptr) kept = outcome->answer.get();
  const bool told = kept != nullptr;
  if (told) CHECK(told_answer_.ParseFromString(*kept));
  verdict_ =
      model_.Execute(command_, {cluster_, entry.index}, told ? &told_answer_ : nullptr, &answer_);
  facts_ = FactsOf(answer_);
  if (!model_.changes().empty()) {
    CHECK(changes_.size() == model_.revision());
    changes_.push_back(model_.changes());
  }
  sessions_.Take(position, facts_);
  Compare(entry, outcome, refusal, false, facts_);
  JudgeEnds(entry);
  CountCommand();
  return verdict_ != StoreModel::Verdict::kNotKept;
}

void StoreChecker::Compare(const raft::Entry& entry, const storage::Applied* outcome,
                           storage::Refusal refusal, bool repeat, std::optional<uint64_t> answer) {
  if (outcome == nullptr) return;
  if (outcome->refusal != refusal || outcome->refused != (refusal != storage::Refusal::kNone)) {
    return FailAt(entry, "its session's rule says \"" + std::string(storage::RefusalName(refusal)) +
                             "\", the node \"" +
                             std::string(storage::RefusalName(outcome->refusal)) + "\"");
  }
  if (outcome->duplicate != repeat) {
    return FailAt(entry, repeat ? "it is executed a second time"
                                : "it is taken for a repeat, and was never executed");
  }
  if ((outcome->answer != nullptr) != answer.has_value()) {
    return FailAt(entry, answer ? "its answer is gone" : "it has an answer");
  }
  if (!answer) return;
  v1::Answer told;
  CHECK(told.ParseFromString(*outcome->answer));
  if (FactsOf(told) == *answer) return;
  FailAt(entry, "it is answered { " + told.ShortDebugString() + " }" +
                    (repeat ? ", and was answered otherwise before"
                            : ", and not { " + answer_.ShortDebugString() + " }"));
}

void StoreChecker::CountCommand() {
  const bool ok = answer_.code() == 0;
  const auto& results = answer_.results();
  if (answer_.reason() == "REQUEST_ID_EXPIRED") report_->Count(Reached::kRequestExpired);
  if (answer_.reason() == "REQUEST_IDS_FULL") report_->Count(Reached::kRequestsFull);
  if (verdict_ != StoreModel::Verdict::kExecuted) return;
  switch (command_.body_case()) {
    case v1::Command::kTransaction: {
      const v1::Transaction& transaction = command_.transaction();
      const bool wide = transaction.then_size() + transaction.otherwise_size() > 1;
      if (wide && ok) {
        report_->Count(answer_.succeeded() ? Reached::kTransactionThen : Reached::kTransactionElse);
      } else if (wide) {
        report_->Count(Reached::kTransactionAborted);
      }
      if (answer_.reason() == "TTL_NOT_FOUND") report_->Count(Reached::kTtlNotFound);
      for (const v1::OperationResult& result : results) {
        if (result.deleted() > 1) report_->Count(Reached::kRangeDeleted);
      }
      return;
    }
    case v1::Command::kRollback:
      if (!ok) return report_->Count(Reached::kRollbackRefused);
      return report_->Count(results[0].count() + results[0].deleted() > 0
                                ? Reached::kRolledBack
                                : Reached::kRollbackOfNothing);
    case v1::Command::kCompactHistory:
      if (ok) report_->Count(Reached::kHistoryCompacted);
      return;
    case v1::Command::kGrantTtl:
      return report_->Count(Reached::kTtlGranted);
    case v1::Command::kKeepAliveTtl:
      return report_->Count(results.empty() || results[0].ttl_ms() == 0 ? Reached::kTtlNotFound
                                                                        : Reached::kTtlRenewed);
    case v1::Command::kRevokeTtl:
      return report_->Count(ok ? Reached::kTtlRevoked : Reached::kTtlNotFound);
    default:
      return;
  }
}

// --- Time-to-lives ---

void StoreChecker::OnRenewed(uint64_t ttl, uint64_t ttl_ms, Micros called, raft::Term term) {
  Life& life = lives_[ttl];
  life.ttl_ms = ttl_ms;
  life.since = std::max(life.since, called);
  life.term = term;
}

// The entry says when its leader made it, by the world's time in whole milliseconds.
void StoreChecker::JudgeEnds(const raft::Entry& entry) {
  if (command_.has_expire_ttl()) report_->Count(Reached::kTtlItemExpired, model_.changes().size());
  for (const uint64_t id : model_.ended_ttls()) {
    const auto found = lives_.find(id);
    if (found == lives_.end()) continue;  // of no client's
    const Life life = found->second;
    lives_.erase(found);
    if (!command_.has_expire_ttl()) continue;
    report_->Count(Reached::kTtlExpired);
    if (life.term != entry.term) report_->Count(Reached::kTtlOverElection);
    const Micros made = (entry.wall_time_ms - kWallTimeAtStart) * kMillisecond + kMillisecond;
    const Micros lived = std::max<Micros>(0, made - life.since);
    // As the fastest clock measures it.
    const Micros measured = lived + lived / 1'000'000 * plan_.drift_ppm +
                            lived % 1'000'000 * plan_.drift_ppm / 1'000'000;
    const Micros wanted = static_cast<Micros>(life.ttl_ms) * kMillisecond;
    if (measured >= wanted) continue;
    FailAt(entry, "the time-to-live " + ToHex(id) + " of " + std::to_string(life.ttl_ms) +
                      " ms is over " + std::to_string(lived) + " us after it was last kept alive");
  }
}

// --- Clients ---

void StoreChecker::Acknowledge(uint64_t revision) {
  if (revision <= acknowledged()) return;
  told_.emplace_back(events_->now(), revision);
}

uint64_t StoreChecker::AcknowledgedBefore(Micros at) const {
  const auto after = std::lower_bound(told_.begin(), told_.end(), std::pair(at, uint64_t{0}));
  return after == told_.begin() ? 1 : std::prev(after)->second;
}

std::map<std::string, const StoreModel::Version*> StoreChecker::StateAt(const std::string& prefix,
                                                                        uint64_t revision) const {
  std::map<std::string, const StoreModel::Version*> state;
  const StoreModel::Items& items = model_.items();
  for (auto each = items.lower_bound(prefix); each != items.end(); ++each) {
    if (each->first.compare(0, prefix.size(), prefix) != 0) break;
    const StoreModel::Version* const version = StoreModel::VersionAt(each->second, revision);
    if (version != nullptr && !version->deleted) state.emplace(each->first, version);
  }
  return state;
}

void StoreChecker::JudgeRead(uint64_t operation, const ReadQuestion& question,
                             const ReadAnswer& answer, uint64_t floor) {
  if (answer.status == ReadAnswer::Status::kUnavailable) return;
  const uint64_t revision = answer.revision.value();
  std::string wrong;
  Shown& shown = shown_[answer.machine];
  if (shown.life != answer.life) shown = {answer.life, 0};
  const bool measured = question.freshness == ReadQuestion::Freshness::kLocal;
  if (measured) floor = answer.age ? AcknowledgedBefore(*answer.age) : 1;
  if (revision > model_.revision()) {
    wrong = "which nobody has applied";
  } else if (revision < shown.revision) {
    wrong = "and its process has shown " + std::to_string(shown.revision) + " before";
  } else if (revision < floor) {
    wrong = "and " + std::to_string(floor) + " was acknowledged before " +
            (measured ? "the moment that it measured" : "it was asked");
  } else if (revision < WholeFrom(answer.store)) {
    wrong = "and " + std::to_string(WholeFrom(answer.store)) +
            " was acknowledged before its store was made: it has never caught up";
  } else if (revision < question.min_revision.value()) {
    wrong = "and was to show " + ToString(question.min_revision) + " at least";
  } else if (answer.compacted.value() > model_.compacted()) {
    wrong = "and has compacted more than anybody asked for";
  } else {
    wrong = WrongIn(question, answer);
  }
  shown.revision = std::max(shown.revision, revision);
  if (wrong.empty()) return;
  Fail("operation " + std::to_string(operation) + ", a read of \"" + question.key +
       "\" at machine " + std::to_string(answer.machine) + ", shows revision " +
       std::to_string(revision) + ", " + wrong);
}

std::string StoreChecker::WrongIn(const ReadQuestion& question, const ReadAnswer& answer) const {
  const uint64_t at = question.at ? question.at->value() : answer.revision.value();
  const bool ahead = at > answer.revision.value();
  const bool compacted =
      question.at && at <= answer.compacted.value() && at != answer.revision.value();
  const std::string past = "revision " + std::to_string(at);
  switch (answer.status) {
    case ReadAnswer::Status::kUnavailable:
      return "";
    case ReadAnswer::Status::kInFuture:
      return ahead ? "" : "and calls " + past + " the future";
    case ReadAnswer::Status::kCompacted:
      return compacted ? "" : "and calls " + past + " compacted";
    case ReadAnswer::Status::kServed:
      break;
  }
  if (ahead) return "and shows the future";
  if (compacted) return "and shows " + past + ", which is compacted";
  switch (question.kind) {
    case ReadQuestion::Kind::kGet: {
      const StoreModel::Version* const wanted = model_.At(question.key, at);
      if ((wanted != nullptr) != !answer.items.empty()) {
        return wanted == nullptr ? "and shows what is not there"
                                 : "and does not show what is there";
      }
      return wanted == nullptr ? "" : WrongVersion(answer.items[0], *wanted);
    }
    case ReadQuestion::Kind::kCount:
      return answer.count == StateAt(question.key, at).size()
                 ? ""
                 : "and counts " + std::to_string(answer.count) + " keys";
    case ReadQuestion::Kind::kList:
      return WrongItems(question, answer, at);
    case ReadQuestion::Kind::kHistory:
      return WrongHistory(question, answer, at);
  }
  return "";
}

std::string StoreChecker::WrongItems(const ReadQuestion& question, const ReadAnswer& answer,
                                     uint64_t at) const {
  size_t next = 0;
  for (const auto& [key, version] : StateAt(question.key, at)) {
    if (!question.after.empty() && key <= question.after) continue;
    if (next == answer.items.size()) {
      if (answer.more && next >= question.items_max) return "";
      return "and lists only " + std::to_string(next) + " items";
    }
    const storage::Item& item = answer.items[next++];
    if (item.key != key) return "and lists " + item.key + " in place of " + key;
    if (std::string wrong = WrongVersion(item, *version); !wrong.empty()) return wrong;
  }
  if (next != answer.items.size())
    return "and lists " + answer.items[next].key + ", which is not there";
  return answer.more ? "and says that there is more" : "";
}

std::string StoreChecker::WrongHistory(const ReadQuestion& question, const ReadAnswer& answer,
                                       uint64_t at) const {
  std::vector<const StoreModel::Version*> wanted;
  const auto found = model_.items().find(question.key);
  const StoreModel::Version* version =
      found == model_.items().end() ? nullptr : StoreModel::VersionAt(found->second, at);
  for (; version != nullptr && wanted.size() < question.items_max;
       version = version->previous.get()) {
    const bool last = version->revision <= answer.compacted.value();
    if (last && version->deleted) break;
    wanted.push_back(version);
    if (last) break;
  }
  if (answer.history.size() != wanted.size()) {
    return "and tells of " + std::to_string(answer.history.size()) + " changes, not of " +
           std::to_string(wanted.size());
  }
  for (size_t i = 0; i < wanted.size(); ++i) {
    const storage::HistoryItem& told = answer.history[i];
    if (told.deleted != wanted[i]->deleted || told.author != wanted[i]->author ||
        told.note != wanted[i]->note || told.item.mod_revision.value() != wanted[i]->revision) {
      return "and tells of another change than that of revision " +
             std::to_string(wanted[i]->revision);
    }
    if (told.deleted) continue;
    if (std::string wrong = WrongVersion(told.item, *wanted[i]); !wrong.empty()) return wrong;
  }
  return "";
}

}  // namespace quorate::sim
