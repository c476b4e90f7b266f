// What goes wrong when: draws the moments of a run's faults, as its plan allows, and does them.
// They are counted where they make a difference, here or elsewhere: what nobody notices is no
// fault.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "tests/sim/context.h"
#include "tests/sim/process.h"

namespace quorate::sim {

class Faults {
 public:
  struct Hands {
    // Ends a machine's process now and starts it again later; with `power` the disk and its page
    // cache fail, too. False: there was none.
    std::function<bool(size_t machine, bool power)> crash;
    std::function<void(size_t machine)> wipe;
    std::function<void(size_t machine)> alarm;  // somebody hears of trouble there
    // Power fails for all of these at one instant; `lost`: and all that is unsynced is gone.
    // Returns how many processes have ended by it.
    std::function<size_t(const std::vector<size_t>& machines, bool lost)> blackout;
  };
  Faults(Context* context, Hands hands) : context_(context), hands_(std::move(hands)) {}

  void Start();
  // Something begins or ends at this machine.
  void OnMoment(size_t machine);
  // No more from now on; what lasts is ended.
  void Stop();

 private:
  void Again();
  void Happen();
  void HappenDuringBirth();
  // Some fault at this machine, perhaps another one in its wake, and so on.
  void Trouble(size_t machine);
  void Do(Fault fault, size_t at);
  Micros Length();
  size_t AnyMachine();
  // A link of this machine, one way: from, to. REQUIRES: there is another machine.
  std::pair<size_t, size_t> AnyLink(size_t at);
  void Partition(size_t at);
  void OneWay(size_t one);
  void CutLink(size_t at);
  void Clog(size_t at);
  void Lame(Machine* machine, Fault fault);
  void Blackout();
  void CrashInDisk(Machine* machine);
  void DiskError(Machine* machine);
  void DiskFull(Machine* machine);
  void Transfer(size_t at);
  void BitFlip(Machine* of);
  // Of the state that this machine's process has open.
  uint64_t Generation(const Machine& machine) const;

  Context* const context_;
  const Hands hands_;
  bool stopped_ = false;
  Micros next_strike_ = 0;  // not before
};

}  // namespace quorate::sim
