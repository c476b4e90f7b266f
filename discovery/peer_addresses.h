// Which addresses are asked who they are, and when DNS is looked into again: what is decided about
// discovery, without a resolver, a clock or a thread (discovery.h has them).
//
// DNS is a hint that may be late, partial, empty or wrong, and so:
//   * What it shows is added at once. What it stops showing is kept for `forget_after`, in which
//     only the time between whole answers without it counts: an error, an empty or a partial answer
//     takes nothing away, nor does the first answer after DNS was away for a day.
//   * Nothing is known until it has answered once with an address: who founds a cluster alone must
//     know that there is nobody else (DESIGN.md, "Birth").
//   * It is looked into again when its records end, within bounds; soon, while `eager`; and at once
//     when a peer is lost. Never twice within `refresh_min`.
//
// Not thread-safe.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/time.h"
#include "discovery/resolve.h"

namespace quorate::discovery {

class PeerAddresses {
 public:
  struct Options {
    Duration refresh_min = std::chrono::seconds(1);
    Duration refresh_max = std::chrono::seconds(30);
    Duration forget_after = std::chrono::minutes(10);
  };
  // The same number of places as raft::Birth asks. With more of them those that were shown last
  // stay, the first in order among equals.
  static constexpr size_t kAddressesMax = 64;

  PeerAddresses(const Options& options, Instant now);

  // Looks into DNS every `refresh_min`: until the cluster is complete, or while somebody is missed.
  // Returns whether that is news.
  bool SetEager(bool eager, Instant now);
  void OnPeerLost(Instant now);

  // True: ask now; OnAnswer follows before the next question.
  bool TakeQuestion(Instant now);
  // Returns whether addresses(), known() or whole() are other ones now.
  bool OnAnswer(const absl::StatusOr<Resolution>& answer, Instant now);

  // When TakeQuestion may be true next; far away while a question is open.
  Instant NextDeadline() const;

  bool known() const { return known_; }
  // An answer has come that was not partial: before that there may be others that were never shown.
  bool whole() const { return whole_; }
  std::vector<std::string> addresses() const;  // sorted bytewise
  // Why the latest question brought nothing; OK: it did, or none was asked.
  const absl::Status& error() const { return error_; }

 private:
  struct Known {
    Instant shown_at;   // last
    Duration missed{};  // since then
  };
  void Forget();

  const Options options_;
  std::map<std::string, Known> addresses_;
  bool known_ = false;
  bool whole_ = false;
  bool eager_ = true;
  bool asking_ = false;
  Instant asked_at_;     // the latest question
  Instant ask_at_;       // the next one
  Instant answered_at_;  // the latest whole answer
  Duration retry_{};     // after the next error
  absl::Status error_;
};

}  // namespace quorate::discovery
