// Where machines are, and what DNS says about that.
//
// Each machine has one address at a time; one that starts may get another one, perhaps one that
// somebody else had before. DNS shows the addresses that there are. Each machine asks a resolver of
// its own, which may lag behind, fail, leave out some, or show what is no more; with and without
// saying that an answer is not whole.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "discovery/resolve.h"
#include "tests/sim/events.h"
#include "tests/sim/machine.h"
#include "tests/sim/plan.h"
#include "tests/sim/random.h"
#include "tests/sim/report.h"

namespace quorate::sim {

class Names {
 public:
  using Machines = std::vector<std::unique_ptr<Machine>>;
  // All of it outlives this.
  Names(const Plan& plan, Random* random, const EventQueue* events, Report* report,
        const Machines* machines)
      : plan_(plan), random_(random), events_(events), report_(report), machines_(*machines) {}

  // Before a machine's process starts: the first time, and later if its address was given back.
  void Assign(Machine* machine);
  // Its process is no more: perhaps it comes back somewhere else.
  void Release(Machine* machine);

  // Whose it is now; null: nobody's.
  Machine* At(const std::string& address) const;

  struct Answer {
    absl::StatusOr<discovery::Resolution> resolution;
    Micros after = 0;
  };
  // What that machine's resolver answers, and how much later.
  Answer Ask(size_t machine);
  // DNS works from now on.
  void Heal() { healed_ = true; }

 private:
  struct Resolver {
    std::vector<std::string> shown;  // sorted
    Micros until = 0;                // it is not looked again before
  };
  std::vector<std::string> All() const;
  absl::StatusOr<discovery::Resolution> Distort(std::vector<std::string> shown);

  const Plan& plan_;
  Random* const random_;
  const EventQueue* const events_;
  Report* const report_;
  const Machines& machines_;
  std::map<size_t, Resolver> resolvers_;
  std::vector<std::string> given_back_;
  std::map<std::string, size_t> last_holder_;
  int made_ = 0;
  bool healed_ = false;
};

}  // namespace quorate::sim
