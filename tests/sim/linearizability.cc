#include "tests/sim/linearizability.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "base/check.h"

namespace quorate::sim {
namespace {

constexpr size_t kUnknownMax = 256;

// Which operations without an outcome have taken effect.
struct UsedUp {
  std::array<uint64_t, kUnknownMax / 64> words{};
  bool Has(size_t i) const { return (words[i / 64] >> (i % 64) & 1) != 0; }
  void Add(size_t i) { words[i / 64] |= uint64_t{1} << (i % 64); }
  bool Within(const UsedUp& other) const {
    for (size_t i = 0; i < words.size(); ++i) {
      if ((words[i] & ~other.words[i]) != 0) return false;
    }
    return true;
  }
};

// One way in which it may have gone so far.
struct Possibility {
  uint64_t state = 0;
  uint64_t done = 0;  // of the open operations, by place
  UsedUp used;
};

// What remains of many possibilities: for each state and set of open operations the fewest used up.
class Frontier {
 public:
  bool Add(const Possibility& fresh) {
    std::vector<UsedUp>& kept = kept_[{fresh.state, fresh.done}];
    for (const UsedUp& used : kept) {
      if (used.Within(fresh.used)) return false;
    }
    const size_t before = kept.size();
    std::erase_if(kept, [&](const UsedUp& used) { return fresh.used.Within(used); });
    kept.push_back(fresh.used);
    size_ += kept.size() - before;
    return true;
  }
  size_t size() const { return size_; }
  std::vector<Possibility> Take() const {
    std::vector<Possibility> all;
    for (const auto& [key, kept] : kept_) {
      for (const UsedUp& used : kept) all.push_back({key.first, key.second, used});
    }
    return all;
  }

 private:
  std::map<std::pair<uint64_t, uint64_t>, std::vector<UsedUp>> kept_;
  size_t size_ = 0;
};

// Whether the operation can take effect now; changes the state to what is then there. One without
// an outcome may have gone either way.
bool TakeEffect(const RegisterOperation& operation, uint64_t* state) {
  const bool known = operation.returned != kNever;
  switch (operation.kind) {
    case RegisterOperation::Kind::kRead:
      return *state == operation.value;
    case RegisterOperation::Kind::kWrite:
      *state = operation.value;
      return true;
    case RegisterOperation::Kind::kDelete:
      if (known && operation.succeeded != (*state != 0)) return false;
      *state = 0;
      return true;
    case RegisterOperation::Kind::kSwap: {
      const bool holds = *state == operation.expected;
      if (known && operation.succeeded != holds) return false;
      if (holds) *state = operation.value;
      return true;
    }
  }
  return false;
}

bool Changes(const RegisterOperation& operation) {
  return operation.kind == RegisterOperation::Kind::kWrite ||
         (operation.kind != RegisterOperation::Kind::kRead && operation.succeeded);
}

class Checker {
 public:
  Checker(const std::vector<RegisterOperation>& history, size_t possibilities_max)
      : history_(history), possibilities_max_(possibilities_max) {}

  Verdict Run() {
    struct Moment {
      Micros at;
      bool is_return;  // at the same time calls come first: those operations overlap
      size_t operation;
      bool operator<(const Moment& other) const {
        return std::tie(at, is_return, operation) <
               std::tie(other.at, other.is_return, other.operation);
      }
    };
    std::vector<Moment> moments;
    for (size_t i = 0; i < history_.size(); ++i) {
      CHECK(history_[i].called <= history_[i].returned);
      // A read without an outcome says nothing.
      if (history_[i].returned == kNever && history_[i].kind == RegisterOperation::Kind::kRead)
        continue;
      moments.push_back({history_[i].called, false, i});
      if (history_[i].returned != kNever) moments.push_back({history_[i].returned, true, i});
    }
    std::sort(moments.begin(), moments.end());
    possible_.push_back({});
    places_.assign(history_.size(), 0);
    FindObserved();
    for (const Moment& moment : moments) {
      if (!moment.is_return) {
        if (!Call(moment.operation)) return Verdict::kUndecided;
      } else if (const Verdict verdict = Return(moment.operation);
                 verdict != Verdict::kLinearizable) {
        return verdict;
      }
    }
    return Verdict::kLinearizable;
  }

 private:
  // What somebody has seen, or has asked for. All other values are one to everybody.
  void FindObserved() {
    for (const RegisterOperation& operation : history_) {
      if (operation.kind == RegisterOperation::Kind::kRead && operation.returned != kNever) {
        observed_.insert(operation.value);
      }
      if (operation.kind == RegisterOperation::Kind::kSwap) observed_.insert(operation.expected);
    }
    observed_.insert(0);
  }

  bool Call(size_t operation) {
    if (history_[operation].returned == kNever) {
      RegisterOperation unknown = history_[operation];
      if (unknown.kind == RegisterOperation::Kind::kDelete) unknown.value = 0;
      if (!observed_.contains(unknown.value)) unknown.value = kUnobserved;
      size_t alike = unknown_.size();
      for (size_t u = 0; u < unknown_.size(); ++u) {
        const RegisterOperation& other = unknown_[u].operation;
        if (other.kind == unknown.kind && other.value == unknown.value &&
            other.expected == unknown.expected) {
          alike = unknown_[u].alike;
          break;
        }
      }
      unknown_.push_back({unknown, alike});
      return unknown_.size() <= kUnknownMax;
    }
    size_t place = 0;
    while (place < open_.size() && open_[place] != kNone) ++place;
    if (place == 64) return false;
    if (place == open_.size()) open_.push_back(kNone);
    open_[place] = operation;
    places_[operation] = place;
    return true;
  }

  // Keeps the possibilities in which this operation has taken effect by now.
  Verdict Return(size_t operation) {
    const size_t place = places_[operation];
    const uint64_t bit = uint64_t{1} << place;
    Frontier seen, kept;
    std::vector<Possibility> todo;
    const auto reach = [&](Possibility next) {
      TakeWhatChangesNothing(&next);
      if ((next.done & bit) != 0) {
        next.done &= ~bit;
        kept.Add(next);
      } else if (seen.Add(next)) {
        todo.push_back(next);
      }
    };
    for (const Possibility& possibility : possible_) reach(possibility);
    for (size_t i = 0; i < todo.size(); ++i) {
      if (seen.size() + kept.size() > possibilities_max_) return Verdict::kUndecided;
      const Possibility from = todo[i];
      for (size_t p = 0; p < open_.size(); ++p) {
        if (open_[p] == kNone || (from.done >> p & 1) != 0) continue;
        Possibility next = from;
        if (!TakeEffect(history_[open_[p]], &next.state)) continue;
        next.done |= uint64_t{1} << p;
        reach(next);
      }
      // Of those that are alike the one that was called first will do.
      tried_.assign(unknown_.size(), false);
      for (size_t u = 0; u < unknown_.size(); ++u) {
        if (from.used.Has(u) || tried_[unknown_[u].alike]) continue;
        tried_[unknown_[u].alike] = true;
        Possibility next = from;
        if (!TakeEffect(unknown_[u].operation, &next.state) || next.state == from.state) continue;
        next.used.Add(u);
        reach(next);
      }
    }
    open_[place] = kNone;
    possible_ = kept.Take();
    return possible_.empty() ? Verdict::kNotLinearizable : Verdict::kLinearizable;
  }

  // An open operation that never changes anything may as well take effect as soon as it can: there
  // is one obligation less afterwards. (A write that finds its own value there is none of these: it
  // may be needed later.)
  void TakeWhatChangesNothing(Possibility* possibility) const {
    for (size_t p = 0; p < open_.size(); ++p) {
      if (open_[p] == kNone || (possibility->done >> p & 1) != 0) continue;
      const RegisterOperation& operation = history_[open_[p]];
      uint64_t state = possibility->state;
      if (!Changes(operation) && TakeEffect(operation, &state)) {
        possibility->done |= uint64_t{1} << p;
      }
    }
  }

  static constexpr size_t kNone = SIZE_MAX;
  static constexpr uint64_t kUnobserved = UINT64_MAX;
  const std::vector<RegisterOperation>& history_;
  const size_t possibilities_max_;
  std::vector<size_t> open_;    // by place; kNone: free
  std::vector<size_t> places_;  // by operation
  struct Unknown {
    RegisterOperation operation;
    size_t alike;  // the first one that does the same
  };
  std::vector<Unknown> unknown_;  // called, without an outcome
  std::set<uint64_t> observed_;
  std::vector<bool> tried_;
  std::vector<Possibility> possible_;
};

// In the order of the hints each has its outcome, and none comes after one that was called only
// when it had returned.
bool HintsProveIt(const std::vector<RegisterOperation>& history) {
  std::vector<const RegisterOperation*> order;
  for (const RegisterOperation& operation : history) {
    if (operation.hint == 0 || operation.returned == kNever) return false;
    order.push_back(&operation);
  }
  std::sort(order.begin(), order.end(), [](const RegisterOperation* a, const RegisterOperation* b) {
    return std::make_tuple(a->hint, !Changes(*a), a->returned) <
           std::make_tuple(b->hint, !Changes(*b), b->returned);
  });
  uint64_t state = 0;
  Micros called = 0;  // the latest
  for (const RegisterOperation* operation : order) {
    called = std::max(called, operation->called);
    if (operation->returned < called || !TakeEffect(*operation, &state)) return false;
  }
  return true;
}

}  // namespace

Verdict CheckRegister(const std::vector<RegisterOperation>& history, size_t possibilities_max) {
  if (HintsProveIt(history)) return Verdict::kLinearizable;
  return Checker(history, possibilities_max).Run();
}

}  // namespace quorate::sim
