// What one write did to one key, as the state machine hands it on: to watches as it happens, and
// when history is read again later. Values only; nothing here decides anything.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"

namespace quorate {

// A place between two changes: everything below it comes before. `sub` numbers the changes of one
// revision from 0; {r, 0} is where revision r begins.
struct ChangePosition {
  Revision revision;
  uint64_t sub = 0;
  friend constexpr auto operator<=>(const ChangePosition&, const ChangePosition&) = default;
};

struct Change {
  // What the key held before.
  struct Previous {
    bool is_text = false;
    std::string value;
    Revision create_revision;
    Revision mod_revision;
    uint64_t version = 0;
    uint64_t ttl = 0;
  };

  Revision revision;
  uint64_t sub = 0;
  std::string key;
  bool deleted = false;
  bool is_text = false;
  std::string value;         // empty when deleted
  Revision create_revision;  // 0 when deleted, as the next one
  uint64_t version = 0;
  uint64_t ttl = 0;  // the time-to-live that the item is bound to; 0: none
  // nullopt: the key did not exist, or nobody asked for it.
  std::optional<Previous> previous;

  // The key did not exist before.
  bool created() const { return !deleted && version == 1; }
  ChangePosition position() const { return {revision, sub}; }
  // About what it takes in memory and on the wire.
  size_t bytes() const {
    return 64 + key.size() + value.size() + (previous ? 32 + previous->value.size() : 0);
  }
};

// All changes of one revision, in order. Shared, never changed.
struct ChangeSet {
  Revision revision;
  bool with_previous = false;  // Change::previous is filled in
  std::vector<Change> changes;
  size_t bytes = 0;
};
using ChangeSetPtr = std::shared_ptr<const ChangeSet>;

// Which keys somebody wants to hear of.
struct KeyFilter {
  bool is_prefix = true;
  std::string text;  // the key or the prefix; an empty prefix: every key

  bool Matches(std::string_view key) const {
    return is_prefix ? key.substr(0, text.size()) == text : key == text;
  }
  friend auto operator<=>(const KeyFilter&, const KeyFilter&) = default;
};

}  // namespace quorate
