#include "tests/sim/identity_checker.h"

#include <utility>

namespace quorate::sim {

void IdentityChecker::Fail(StoreId store, const std::string& what) {
  failure_->Fail("identity of store " + ToHex(store) + ": " + what);
}

void IdentityChecker::OnFound(StoreId store, const storage::Identity& found) {
  const auto known = durable_.find(store);
  if (known == durable_.end()) return;
  const storage::Identity& was = known->second;
  if (found.store != was.store || found.node != was.node) Fail(store, "it is another one's");
  if (was.cluster && found.cluster != was.cluster) Fail(store, "its cluster is another one");
  if (found.boot < was.boot) Fail(store, "its number of starts goes back");
  if (was.log_made && !found.log_made) Fail(store, "it forgets that there is a log");
  if (was.caught_up_once && !found.caught_up_once) Fail(store, "it forgets that it had caught up");
  if (found.promised_ms < was.promised_ms) Fail(store, "its promise shrinks");
}

void IdentityChecker::OnChanged(StoreId store, const storage::Identity& now) {
  OnFound(store, now);
  durable_[store] = now;
}

void IdentityChecker::OnBoot(StoreId store, uint64_t boot) {
  const uint64_t last = std::exchange(boots_[store], boot);
  if (boot <= last) {
    Fail(store, "start " + std::to_string(boot) + " comes after start " + std::to_string(last));
  }
}

}  // namespace quorate::sim
