// Every change of the store, by revision, as the commands and their answers say: what watches are
// judged by. One change for each revision, because the simulated clients write one key at a time.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace quorate::sim {

class WatchTruth {
 public:
  struct Change {
    std::string key;
    std::optional<std::string> value;  // nullopt: deleted
  };
  void Add(uint64_t revision, Change change) {
    if (changes_.size() <= revision) changes_.resize(revision + 1);
    changes_[revision] = std::move(change);
  }
  const std::optional<Change>* At(uint64_t revision) const {
    return revision < changes_.size() ? &changes_[revision] : nullptr;
  }
  uint64_t head() const { return changes_.empty() ? 1 : changes_.size() - 1; }
  // What was under a key before this revision.
  std::optional<std::string> Before(uint64_t revision, const std::string& key) const {
    while (revision-- > 0) {
      const auto& change = changes_[revision];
      if (change && change->key == key) return change->value;
    }
    return std::nullopt;
  }
  std::map<std::string, std::string> StateAt(uint64_t revision) const {
    std::map<std::string, std::string> state;
    for (uint64_t i = 0; i <= revision && i < changes_.size(); ++i) {
      if (!changes_[i]) continue;
      if (changes_[i]->value) {
        state[changes_[i]->key] = *changes_[i]->value;
      } else {
        state.erase(changes_[i]->key);
      }
    }
    return state;
  }

 private:
  std::vector<std::optional<Change>> changes_;
};

}  // namespace quorate::sim
