// Judges identity files, apart from the code that it judges: what was durable in one never goes
// back, whatever its machine went through; and no number of a start is given twice. What the file
// says of birth is BirthChecker's to judge.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/ids.h"
#include "storage/identity.h"
#include "tests/sim/report.h"

namespace quorate::sim {

class IdentityChecker {
 public:
  explicit IdentityChecker(Failure* failure) : failure_(failure) {}

  // As a start finds it, or makes it where there is none.
  void OnFound(StoreId store, const storage::Identity& found);
  // It is durable as it is.
  void OnChanged(StoreId store, const storage::Identity& now);
  // A start, or a session, was given this number.
  void OnBoot(StoreId store, uint64_t boot);

 private:
  void Fail(StoreId store, const std::string& what);

  Failure* const failure_;
  std::map<StoreId, storage::Identity> durable_;
  std::map<StoreId, uint64_t> boots_;  // the last one
};

}  // namespace quorate::sim
