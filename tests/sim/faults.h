// What goes wrong when: draws the moments of a run's faults, as its plan allows, and does them.
#pragma once

#include <functional>
#include <vector>

#include "tests/sim/context.h"
#include "tests/sim/process.h"

namespace quorate::sim {

class Faults {
 public:
  struct Hands {
    // Ends a machine's process now and starts it again later; with `power` the disk and its page
    // cache fail, too.
    std::function<void(size_t machine, bool power)> crash;
    std::function<void(size_t machine)> wipe;
  };
  Faults(Context* context, Hands hands) : context_(context), hands_(std::move(hands)) {}

  void Start();
  // No more from now on; what lasts is ended.
  void Stop();

 private:
  void Again();
  void Happen();
  void HappenDuringBirth();
  void Do(Fault fault);
  Micros Length();
  size_t AnyMachine();
  void Partition();
  void OneWay();
  void CutLink();
  void Clog();
  void CrashInDisk();
  void DiskError();
  void DiskFull();
  void Transfer();
  void BitFlip();
  // Of the state that this machine's process has open.
  uint64_t Generation(const Machine& machine) const;

  Context* const context_;
  const Hands hands_;
  bool stopped_ = false;
};

}  // namespace quorate::sim
