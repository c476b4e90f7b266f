// The register checker against exhaustive search, on histories small enough for it.
#include "tests/sim/linearizability.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/sanitizer_share.h"
#include "tests/sim/random.h"

namespace quorate::sim {
namespace {

// Every order, one operation after the other; written apart from the checker.
class Exhaustive {
 public:
  explicit Exhaustive(const std::vector<RegisterOperation>& history) : history_(history) {}
  bool Linearizable() { return Search(0, 0); }

 private:
  bool Search(uint32_t done, uint64_t state) {
    bool all = true;
    for (size_t i = 0; i < history_.size(); ++i) {
      if ((done >> i & 1) == 0 && history_[i].returned != kNever) all = false;
    }
    if (all) return true;
    for (size_t i = 0; i < history_.size(); ++i) {
      if ((done >> i & 1) != 0 || !MayBeNext(i, done)) continue;
      uint64_t next = state;
      if (Happens(history_[i], &next) && Search(done | 1u << i, next)) return true;
    }
    return false;
  }
  // Nobody who is not done had returned before this one was called.
  bool MayBeNext(size_t candidate, uint32_t done) const {
    for (size_t i = 0; i < history_.size(); ++i) {
      if ((done >> i & 1) == 0 && history_[i].returned < history_[candidate].called) return false;
    }
    return true;
  }
  static bool Happens(const RegisterOperation& operation, uint64_t* state) {
    const bool known = operation.returned != kNever;
    if (operation.kind == RegisterOperation::Kind::kRead)
      return !known || *state == operation.value;
    bool succeeds = true;
    uint64_t next = operation.value;
    if (operation.kind == RegisterOperation::Kind::kDelete) {
      succeeds = *state != 0;
      next = 0;
    } else if (operation.kind == RegisterOperation::Kind::kSwap) {
      succeeds = *state == operation.expected;
    }
    if (known && operation.kind != RegisterOperation::Kind::kWrite &&
        succeeds != operation.succeeded)
      return false;
    if (succeeds) *state = next;
    return true;
  }

  const std::vector<RegisterOperation>& history_;
};

// Operations that really happened one at a time, each somewhere in its interval; then, half the
// time, one of them is made to tell something else.
std::vector<RegisterOperation> Generate(Random* random) {
  std::vector<RegisterOperation> history;
  const uint64_t count = 3 + random->Below(6);
  const uint64_t values = 1 + random->Below(3);
  uint64_t state = 0;
  Micros now = 10;
  for (uint64_t i = 0; i < count; ++i) {
    RegisterOperation operation;
    now += random->Between(1, 4);
    operation.kind = static_cast<RegisterOperation::Kind>(random->Below(4));
    operation.called = now - random->Between(0, 4);
    operation.returned = now + random->Between(0, 4);
    switch (operation.kind) {
      case RegisterOperation::Kind::kRead:
        operation.value = state;
        break;
      case RegisterOperation::Kind::kWrite:
        operation.value = 1 + random->Below(values);
        break;
      case RegisterOperation::Kind::kDelete:
        operation.succeeded = state != 0;
        break;
      case RegisterOperation::Kind::kSwap:
        operation.value = 1 + random->Below(values);
        operation.expected = random->Below(values + 1);
        operation.succeeded = operation.expected == state;
        break;
    }
    const bool unknown = operation.kind != RegisterOperation::Kind::kRead && random->OneIn(4);
    if (unknown) operation.returned = kNever;
    history.push_back(operation);
    if (unknown && random->OneIn(2)) continue;  // it never happened
    if (operation.kind == RegisterOperation::Kind::kWrite) state = operation.value;
    if (operation.kind == RegisterOperation::Kind::kDelete) state = 0;
    if (operation.kind == RegisterOperation::Kind::kSwap && operation.succeeded)
      state = operation.value;
  }
  for (uint64_t lies = random->OneIn(3) ? 0 : random->Between(1, 5); lies > 0; --lies) {
    RegisterOperation& liar = history[random->Below(history.size())];
    if (liar.kind == RegisterOperation::Kind::kRead) {
      liar.value = random->Below(values + 1);
    } else {
      liar.succeeded = !liar.succeeded;
    }
  }
  return history;
}

std::string Text(const std::vector<RegisterOperation>& history) {
  std::string text;
  for (const RegisterOperation& operation : history) {
    static constexpr const char* kNames[] = {"read", "write", "delete", "swap"};
    text +=
        std::string(kNames[static_cast<size_t>(operation.kind)]) + " " +
        std::to_string(operation.value) + " expected " + std::to_string(operation.expected) +
        (operation.succeeded ? " ok" : " no") + " from " + std::to_string(operation.called) +
        " to " +
        (operation.returned == kNever ? std::string("never") : std::to_string(operation.returned)) +
        "\n";
  }
  return text;
}

TEST(LinearizabilityTest, AgreesWithExhaustiveSearch) {
  Random random(20261122);
  const uint64_t total = SanitizerShare(100'000);
  for (uint64_t i = 0; i < total; ++i) {
    // As many that are linearizable as that are not.
    std::vector<RegisterOperation> history;
    const bool wanted = i % 2 == 0;
    do {
      history = Generate(&random);
    } while (Exhaustive(history).Linearizable() != wanted);
    ASSERT_EQ(CheckRegister(history), wanted ? Verdict::kLinearizable : Verdict::kNotLinearizable)
        << Text(history);
  }
}

RegisterOperation WriteOf(Micros called, Micros returned, uint64_t value) {
  return {RegisterOperation::Kind::kWrite, called, returned, value, 0, true};
}
RegisterOperation ReadOf(Micros called, Micros returned, uint64_t value) {
  return {RegisterOperation::Kind::kRead, called, returned, value, 0, true};
}

TEST(LinearizabilityTest, AStaleReadIsFound) {
  EXPECT_EQ(CheckRegister({WriteOf(1, 2, 7), WriteOf(3, 4, 8), ReadOf(5, 6, 7)}),
            Verdict::kNotLinearizable);
  EXPECT_EQ(CheckRegister({WriteOf(1, 2, 7), WriteOf(3, 6, 8), ReadOf(5, 7, 7)}),
            Verdict::kLinearizable);
}

TEST(LinearizabilityTest, AnUnknownWriteMayHappenAtAnyTimeButOnce) {
  EXPECT_EQ(
      CheckRegister({WriteOf(1, kNever, 7), WriteOf(3, 4, 8), ReadOf(5, 6, 8), ReadOf(7, 8, 7)}),
      Verdict::kLinearizable);
  EXPECT_EQ(
      CheckRegister({WriteOf(1, kNever, 7), ReadOf(3, 4, 7), WriteOf(5, 6, 8), ReadOf(7, 8, 7)}),
      Verdict::kNotLinearizable);
}

// Three hundred writes whose outcome nobody knows, none of them seen: this must cost nothing.
TEST(LinearizabilityTest, ManyUnknownWritesThatNobodySaw) {
  std::vector<RegisterOperation> history;
  for (Micros i = 0; i < 250; ++i)
    history.push_back(WriteOf(i, kNever, 1000 + static_cast<uint64_t>(i)));
  for (Micros i = 0; i < 250; ++i) {
    history.push_back(WriteOf(1000 + 10 * i, 1005 + 10 * i, static_cast<uint64_t>(i) + 1));
    history.push_back(ReadOf(1006 + 10 * i, 1008 + 10 * i, static_cast<uint64_t>(i) + 1));
  }
  EXPECT_EQ(CheckRegister(history), Verdict::kLinearizable);
}

// --- What it does not decide ---

TEST(LinearizabilityTest, SaysSoWhenThereIsTooMuch) {
  std::vector<RegisterOperation> many;
  for (uint64_t i = 0; i < 65; ++i) many.push_back(WriteOf(1, 10, i + 1));
  EXPECT_EQ(CheckRegister(many), Verdict::kUndecided);
  std::vector<RegisterOperation> unknown;
  for (uint64_t i = 0; i < 257; ++i) unknown.push_back(WriteOf(1, kNever, i + 1));
  EXPECT_EQ(CheckRegister(unknown), Verdict::kUndecided);
}

// --- Hints ---

TEST(LinearizabilityHintsTest, RightOnesDecideWhatIsTooHardWithoutThem) {
  // Forty writes at the same time, and reads of each value in their order.
  std::vector<RegisterOperation> history;
  for (uint64_t i = 1; i <= 40; ++i) {
    RegisterOperation write{RegisterOperation::Kind::kWrite, 0, 1000, i};
    RegisterOperation read{RegisterOperation::Kind::kRead, 0, 1000, i};
    write.hint = read.hint = i;
    history.push_back(write);
    if (i % 2 == 0) history.push_back(read);
  }
  EXPECT_EQ(CheckRegister(history, 1000), Verdict::kLinearizable);
  for (RegisterOperation& operation : history) operation.hint = 0;
  EXPECT_EQ(CheckRegister(history, 1000), Verdict::kUndecided);
}

TEST(LinearizabilityHintsTest, WrongOnesCountForNothing) {
  RegisterOperation first{RegisterOperation::Kind::kWrite, 0, 10, 1};
  RegisterOperation second{RegisterOperation::Kind::kWrite, 20, 30, 2};
  RegisterOperation read{RegisterOperation::Kind::kRead, 40, 50, 2};
  first.hint = 2;
  second.hint = 1;
  read.hint = 3;
  EXPECT_EQ(CheckRegister({first, second, read}), Verdict::kLinearizable);
  // In the order that they give it would be fine, and it was not so.
  read.value = 1;
  EXPECT_EQ(CheckRegister({first, second, read}), Verdict::kNotLinearizable);
  // In the right order by time, and the value is not the last one.
  first.hint = 1;
  second.hint = 2;
  EXPECT_EQ(CheckRegister({first, second, read}), Verdict::kNotLinearizable);
}

}  // namespace
}  // namespace quorate::sim
