// What a client asks for: draws reads and writes as the plan mixes them.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "quorate/v1/command.pb.h"
#include "tests/sim/linearizability.h"
#include "tests/sim/plan.h"
#include "tests/sim/random.h"
#include "tests/sim/reads.h"

namespace quorate::sim {

// What a client knows of the store.
struct ClientView {
  uint64_t revision = 1;            // the highest that it was told
  std::map<size_t, uint64_t> seen;  // the write that it last saw under each key; 0: nothing there
  std::vector<uint64_t> ttls;       // time-to-lives that it was granted, the latest last
};

class ClientMix {
 public:
  ClientMix(const Plan& plan, Random* random) : plan_(plan), random_(*random) {}

  struct Write {
    // One key, whose register says all: `kind`, `key` and `expected` are its operation.
    bool simple = false;
    RegisterOperation::Kind kind = RegisterOperation::Kind::kWrite;
    size_t key = 0;
    uint64_t expected = 0;
    v1::Command command;
  };
  Write DrawWrite(const ClientView& view);
  // The command says which operation it is, and so do the values that it puts.
  void Name(uint64_t operation, v1::Command* command) const;
  std::string ValueOf(uint64_t operation) const;

  ReadQuestion DrawRead(const ClientView& view);

 private:
  size_t AnyKey() { return random_.Below(plan_.keys); }
  Write Simple(const ClientView& view);
  Write Transaction(const ClientView& view);
  Write Ttl(const ClientView& view);
  Write Range(const ClientView& view);
  void AddCompare(const ClientView& view, v1::Transaction* transaction);
  void AddOperation(const ClientView& view, std::set<size_t>* changed, v1::Operation* operation);
  void Put(size_t key, uint64_t ttl, v1::PutOperation* put);
  uint64_t AnyTtl(const ClientView& view);
  uint64_t PastRevision(const ClientView& view);
  // Fills in key and range_end of anything that has both.
  template <typename Ranged>
  void AnyRange(Ranged* ranged);

  const Plan& plan_;
  Random& random_;
};

}  // namespace quorate::sim
