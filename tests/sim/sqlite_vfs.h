// SQLite's files on simulated disks: a VFS of its own (sqlite.org/vfs.html), made SQLite's default,
// that sends every path below a mounted directory to that machine's disk.
//
// As SQLite's own VFS for Linux does: a file that SQLite has created makes its name durable with
// its first sync, sectors are 4 KiB, and writes do not damage their neighbours (the disk tears at
// sectors of 512 bytes, within what was written). The write-ahead log's index lives in memory and
// is gone with the last connection; locks are those of one process.
//
// One thread. Randomness and time are the simulator's, so that a run is the same each time.
#pragma once

#include <string>

#include "tests/disk/simulated_disk.h"
#include "tests/sim/random.h"

namespace quorate::sim {

// For as long as it lives paths that begin with `prefix` + "/" are on that disk.
class SqliteMount {
 public:
  // The first one makes the VFS SQLite's default, for good. `random` is the run's.
  SqliteMount(std::string prefix, SimulatedDisk* disk, Random* random);
  ~SqliteMount();
  SqliteMount(const SqliteMount&) = delete;
  SqliteMount& operator=(const SqliteMount&) = delete;

 private:
  const std::string prefix_;
};

}  // namespace quorate::sim
