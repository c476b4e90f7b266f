#include "tests/sim/client_mix.h"

#include <algorithm>
#include <utility>

#include "tests/sim/history.h"

namespace quorate::sim {
namespace {

// Short, so that a run sees many of them end.
constexpr int64_t kTtlMsMin = 1000, kTtlMsMax = 5000;

std::string KeyOf(size_t key) { return History::KeyName(key); }

}  // namespace

std::string ClientMix::ValueOf(uint64_t operation) const {
  std::string value = std::to_string(operation) + ":";
  if (value.size() < plan_.value_bytes) value.resize(plan_.value_bytes, 'v');
  return value;
}

void ClientMix::Name(uint64_t operation, v1::Command* command) const {
  command->set_note(History::NoteOf(operation));
  if (!command->has_transaction()) return;
  v1::Transaction* const transaction = command->mutable_transaction();
  for (auto* branch : {transaction->mutable_then(), transaction->mutable_otherwise()}) {
    for (v1::Operation& each : *branch) {
      if (each.has_put()) each.mutable_put()->set_value(ValueOf(operation));
    }
  }
}

ClientMix::Write ClientMix::DrawWrite(const ClientView& view) {
  const uint64_t dice = random_.Below(1000);
  uint64_t share = plan_.txn_permille;
  if (dice < share) return Transaction(view);
  share += plan_.ttl_permille;
  if (dice < share) return Ttl(view);
  share += plan_.range_permille;
  if (dice < share) return Range(view);
  return Simple(view);
}

void ClientMix::Put(size_t key, uint64_t ttl, v1::PutOperation* put) {
  put->set_key(KeyOf(key));
  put->set_value_kind(random_.OneIn(4) ? v1::VALUE_KIND_DATA : v1::VALUE_KIND_TEXT);
  put->set_ttl_id(ttl);
}

ClientMix::Write ClientMix::Simple(const ClientView& view) {
  Write write;
  write.simple = true;
  write.key = AnyKey();
  v1::Transaction* const transaction = write.command.mutable_transaction();
  v1::Operation* const operation = transaction->add_then();
  const uint64_t dice = random_.Below(10);
  if (dice == 0) {
    write.kind = RegisterOperation::Kind::kDelete;
    operation->mutable_delete_()->set_key(KeyOf(write.key));
    return write;
  }
  Put(write.key, 0, operation->mutable_put());
  if (dice < 7) return write;
  write.kind = RegisterOperation::Kind::kSwap;
  const auto seen = view.seen.find(write.key);
  write.expected = seen == view.seen.end() ? 0 : seen->second;
  v1::Compare* const compare = transaction->add_compare();
  compare->set_key(KeyOf(write.key));
  compare->set_result(v1::Compare::RESULT_EQUAL);
  if (write.expected == 0) {
    compare->set_version(0);
  } else {
    compare->set_value(ValueOf(write.expected));
  }
  transaction->set_abort_on_false(random_.OneIn(2));
  return write;
}

// --- Many keys ---

ClientMix::Write ClientMix::Transaction(const ClientView& view) {
  Write write;
  v1::Transaction* const transaction = write.command.mutable_transaction();
  for (int64_t n = random_.Between(0, 3); n > 0; --n) AddCompare(view, transaction);
  std::set<size_t> changed;
  for (int64_t n = random_.Between(1, 5); n > 0; --n) {
    AddOperation(view, &changed, transaction->add_then());
  }
  changed.clear();
  for (int64_t n = random_.Between(0, 4); n > 0; --n) {
    AddOperation(view, &changed, transaction->add_otherwise());
  }
  transaction->set_abort_on_false(random_.OneIn(6));
  return write;
}

void ClientMix::AddCompare(const ClientView& view, v1::Transaction* transaction) {
  v1::Compare* const compare = transaction->add_compare();
  const size_t key = AnyKey();
  compare->set_key(KeyOf(key));
  const bool equal = random_.OneIn(2);
  compare->set_result(equal ? v1::Compare::RESULT_EQUAL : v1::Compare::RESULT_NOT_EQUAL);
  const auto seen = view.seen.find(key);
  switch (random_.Below(4)) {
    case 0:
      compare->set_version(random_.Below(3));
      if (!equal) compare->set_result(v1::Compare::RESULT_GREATER);
      return;
    case 1:
      compare->set_mod_revision(view.revision -
                                random_.Below(std::min<uint64_t>(view.revision, 20)));
      compare->set_result(equal ? v1::Compare::RESULT_GREATER : v1::Compare::RESULT_LESS);
      return;
    case 2:
      compare->set_create_revision(0);
      return;
    default:
      if (seen == view.seen.end() || seen->second == 0) return compare->set_version(0);
      compare->set_value(ValueOf(seen->second));
  }
}

// What is put or deleted by name is so once, as the services demand.
void ClientMix::AddOperation(const ClientView& view, std::set<size_t>* changed,
                             v1::Operation* operation) {
  const size_t key = AnyKey();
  const uint64_t dice = random_.Below(20);
  const bool is_change = dice < 12 && changed->insert(key).second;
  if (is_change && dice < 9) {
    return Put(key, random_.OneIn(5) ? AnyTtl(view) : 0, operation->mutable_put());
  }
  if (is_change) return operation->mutable_delete_()->set_key(KeyOf(key));
  if (dice == 12) return AnyRange(operation->mutable_delete_());
  v1::ReadOperation* const read = operation->mutable_read();
  if (dice < 17) return read->set_key(KeyOf(key));
  AnyRange(read);
  read->set_keys_only(random_.OneIn(3));
  read->set_count_only(random_.OneIn(3));
}

template <typename Ranged>
void ClientMix::AnyRange(Ranged* ranged) {
  std::string first = KeyOf(AnyKey());
  std::string end = KeyOf(AnyKey());
  if (end < first) std::swap(first, end);
  ranged->set_key(first);
  if (first == end || random_.OneIn(20)) end = std::string(1, '\0');  // to the end of all keys
  ranged->set_range_end(end);
}

ClientMix::Write ClientMix::Range(const ClientView& view) {
  Write write;
  if (random_.OneIn(3)) {
    AnyRange(write.command.mutable_transaction()->add_then()->mutable_delete_());
    return write;
  }
  v1::Rollback* const rollback = write.command.mutable_rollback();
  if (random_.OneIn(2)) {
    AnyRange(rollback);
  } else {
    rollback->set_key(KeyOf(AnyKey()));
  }
  rollback->set_to_revision(PastRevision(view));
  return write;
}

uint64_t ClientMix::PastRevision(const ClientView& view) {
  if (random_.OneIn(20)) return view.revision + static_cast<uint64_t>(random_.Skewed(1, 100'000));
  if (random_.OneIn(20)) return 1 + random_.Below(view.revision);
  const auto back = static_cast<uint64_t>(random_.Skewed(1, 60)) - 1;
  return view.revision > back ? view.revision - back : 1;
}

// --- Time-to-lives ---

uint64_t ClientMix::AnyTtl(const ClientView& view) {
  return view.ttls.empty() ? 0 : random_.Pick(view.ttls);
}

ClientMix::Write ClientMix::Ttl(const ClientView& view) {
  Write write;
  const uint64_t dice = view.ttls.empty() ? 0 : random_.Below(11);
  if (dice < 2) {
    write.command.mutable_grant_ttl()->set_ttl_ms(
        static_cast<uint64_t>(random_.Between(kTtlMsMin, kTtlMsMax)));
  } else if (dice < 6) {
    const size_t key = AnyKey();  // drawn first, with every compiler
    Put(key, AnyTtl(view), write.command.mutable_transaction()->add_then()->mutable_put());
  } else if (dice < 10) {
    for (int64_t n = random_.Between(1, 3); n > 0; --n) {
      write.command.mutable_keep_alive_ttl()->add_ttl_id(AnyTtl(view));
    }
  } else {
    write.command.mutable_revoke_ttl()->set_ttl_id(AnyTtl(view));
  }
  return write;
}

// --- Reads ---

ReadQuestion ClientMix::DrawRead(const ClientView& view) {
  using Kind = ReadQuestion::Kind;
  ReadQuestion question;
  question.key = KeyOf(AnyKey());
  const uint64_t all = plan_.local_permille + plan_.read_permille;
  if (random_.Below(std::max<uint64_t>(all, 1)) >= plan_.local_permille) {
    const bool by_lease = plan_.leases && random_.OneIn(2);
    question.freshness =
        by_lease ? ReadQuestion::Freshness::kLease : ReadQuestion::Freshness::kLinearizable;
  } else if (random_.OneIn(3)) {
    question.max_staleness = Duration(random_.Skewed(1, 2000) * kMillisecond);
  }
  if (random_.OneIn(6)) question.min_revision = Revision(view.revision);
  if (!random_.Chance(plan_.wide_permille)) return question;
  switch (random_.Below(4)) {
    case 0:
      question.kind = Kind::kList;
      question.items_max = random_.OneIn(2) ? static_cast<size_t>(random_.Between(1, 5)) : 1000;
      break;
    case 1:
      question.kind = Kind::kCount;
      break;
    case 2:
      question.kind = Kind::kHistory;
      question.items_max = static_cast<size_t>(random_.Skewed(1, 60));
      break;
    default:
      break;
  }
  if (question.kind == Kind::kList || question.kind == Kind::kCount) {
    question.key = random_.OneIn(3) ? "k1" : random_.OneIn(2) ? "k" : "";
  }
  if (question.kind == Kind::kGet || random_.OneIn(2)) question.at = Revision(PastRevision(view));
  return question;
}

}  // namespace quorate::sim
