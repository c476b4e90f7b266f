#include "tests/sim/sqlite_vfs.h"

#include <sqlite3.h>

#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "base/check.h"

namespace quorate::sim {
namespace {

// What the connections of one database share.
struct Shared {
  int shared_locks = 0;
  const void* reserved = nullptr;  // the connection that holds it, or more
  const void* pending = nullptr;
  const void* exclusive = nullptr;
  // The write-ahead log's index, and its locks.
  std::vector<std::unique_ptr<char[]>> regions;
  std::array<int, SQLITE_SHM_NLOCK> readers{};
  std::array<const void*, SQLITE_SHM_NLOCK> writer{};
  int users = 0;  // connections that have mapped it
};

struct Mount {
  SimulatedDisk* disk = nullptr;
  Random* random = nullptr;
};

struct Registry {
  std::map<std::string, Mount> mounts;
  std::map<std::string, std::weak_ptr<Shared>> shared;  // by path
  Random* random = nullptr;                             // of the latest mount
};

Registry& TheRegistry() {
  static Registry registry;
  return registry;
}

SimulatedDisk* DiskOf(const std::string& path) {
  for (const auto& [prefix, mount] : TheRegistry().mounts) {
    if (path.size() > prefix.size() && path.compare(0, prefix.size(), prefix) == 0 &&
        path[prefix.size()] == '/') {
      return mount.disk;
    }
  }
  return nullptr;
}

int CodeOf(const absl::Status& status, int code) {
  if (status.ok()) return SQLITE_OK;
  return absl::IsResourceExhausted(status) ? SQLITE_FULL : code;
}

// SQLite allocates it, and wants the base first.
struct File {
  sqlite3_file base;
  SimulatedDisk* disk;
  storage::DiskFile* file;
  std::string* path;
  std::shared_ptr<Shared>* shared;
  int lock;             // SQLITE_LOCK_*
  bool sync_directory;  // with the first sync
  bool delete_on_close;
  bool maps;
  std::array<bool, SQLITE_SHM_NLOCK> reads, writes;  // locks of the index that it holds
};

File* Of(sqlite3_file* file) { return reinterpret_cast<File*>(file); }

// --- A file ---

int ShmUnmap(sqlite3_file* base, int remove);

int Close(sqlite3_file* base) {
  File* const file = Of(base);
  ShmUnmap(base, 0);
  file->base.pMethods->xUnlock(base, SQLITE_LOCK_NONE);
  if (file->delete_on_close) file->disk->Remove(*file->path).IgnoreError();
  delete file->file;
  delete file->path;
  delete file->shared;
  return SQLITE_OK;
}

int ReadFile(sqlite3_file* base, void* to, int amount, sqlite3_int64 offset) {
  const auto bytes =
      Of(base)->file->Read(static_cast<uint64_t>(offset), static_cast<size_t>(amount));
  if (!bytes.ok()) return SQLITE_IOERR_READ;
  std::memcpy(to, bytes->data(), bytes->size());
  if (bytes->size() == static_cast<size_t>(amount)) return SQLITE_OK;
  std::memset(static_cast<char*>(to) + bytes->size(), 0,
              static_cast<size_t>(amount) - bytes->size());
  return SQLITE_IOERR_SHORT_READ;
}

int WriteFile(sqlite3_file* base, const void* from, int amount, sqlite3_int64 offset) {
  return CodeOf(Of(base)->file->Write(
                    static_cast<uint64_t>(offset),
                    std::string_view(static_cast<const char*>(from), static_cast<size_t>(amount))),
                SQLITE_IOERR_WRITE);
}

int Truncate(sqlite3_file* base, sqlite3_int64 size) {
  return CodeOf(Of(base)->file->Truncate(static_cast<uint64_t>(size)), SQLITE_IOERR_TRUNCATE);
}

int Sync(sqlite3_file* base, int) {
  File* const file = Of(base);
  if (const absl::Status status = file->file->Sync(); !status.ok()) {
    return CodeOf(status, SQLITE_IOERR_FSYNC);
  }
  if (!file->sync_directory) return SQLITE_OK;
  file->sync_directory = false;
  return CodeOf(file->disk->SyncDirectory(storage::ParentDirectory(*file->path)),
                SQLITE_IOERR_DIR_FSYNC);
}

int FileSize(sqlite3_file* base, sqlite3_int64* size) {
  const auto bytes = Of(base)->file->Size();
  if (!bytes.ok()) return SQLITE_IOERR_FSTAT;
  *size = static_cast<sqlite3_int64>(*bytes);
  return SQLITE_OK;
}

// The five states of sqlite.org/lockingv3.html.
int Lock(sqlite3_file* base, int wanted) {
  File* const file = Of(base);
  Shared& shared = **file->shared;
  if (file->lock >= wanted) return SQLITE_OK;
  const auto free = [file](const void* holder) { return holder == nullptr || holder == file; };
  if (wanted == SQLITE_LOCK_SHARED) {
    if (shared.pending != nullptr || shared.exclusive != nullptr) return SQLITE_BUSY;
    ++shared.shared_locks;
  } else {
    if (!free(shared.reserved) || !free(shared.pending)) return SQLITE_BUSY;
    shared.reserved = file;
    if (wanted == SQLITE_LOCK_EXCLUSIVE) {
      shared.pending = file;
      if (shared.shared_locks > 1) {
        file->lock = SQLITE_LOCK_PENDING;
        return SQLITE_BUSY;
      }
      shared.exclusive = file;
    }
  }
  file->lock = wanted;
  return SQLITE_OK;
}

int Unlock(sqlite3_file* base, int wanted) {
  File* const file = Of(base);
  Shared& shared = **file->shared;
  if (file->lock <= wanted) return SQLITE_OK;
  for (const void** holder : {&shared.reserved, &shared.pending, &shared.exclusive}) {
    if (*holder == file) *holder = nullptr;
  }
  if (wanted == SQLITE_LOCK_NONE) --shared.shared_locks;
  file->lock = wanted;
  return SQLITE_OK;
}

int CheckReservedLock(sqlite3_file* base, int* reserved) {
  *reserved = (*Of(base)->shared)->reserved != nullptr;
  return SQLITE_OK;
}

int FileControl(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
int SectorSize(sqlite3_file*) { return 4096; }
int Characteristics(sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

// --- The index of the write-ahead log ---

int ShmMap(sqlite3_file* base, int region, int bytes, int extend, void volatile** out) {
  File* const file = Of(base);
  Shared& shared = **file->shared;
  if (!file->maps) {
    file->maps = true;
    ++shared.users;
  }
  *out = nullptr;
  while (shared.regions.size() <= static_cast<size_t>(region)) {
    if (!extend) return SQLITE_OK;
    shared.regions.push_back(std::make_unique<char[]>(static_cast<size_t>(bytes)));
  }
  *out = shared.regions[static_cast<size_t>(region)].get();
  return SQLITE_OK;
}

int ShmLock(sqlite3_file* base, int offset, int count, int flags) {
  File* const file = Of(base);
  Shared& shared = **file->shared;
  const size_t first = static_cast<size_t>(offset), end = first + static_cast<size_t>(count);
  if ((flags & SQLITE_SHM_UNLOCK) != 0) {
    for (size_t i = first; i < end; ++i) {
      if (file->reads[i]) --shared.readers[i];
      if (file->writes[i]) shared.writer[i] = nullptr;
      file->reads[i] = file->writes[i] = false;
    }
    return SQLITE_OK;
  }
  const bool exclusive = (flags & SQLITE_SHM_EXCLUSIVE) != 0;
  for (size_t i = first; i < end; ++i) {
    if (shared.writer[i] != nullptr && shared.writer[i] != file) return SQLITE_BUSY;
    if (exclusive && shared.readers[i] - (file->reads[i] ? 1 : 0) > 0) return SQLITE_BUSY;
  }
  for (size_t i = first; i < end; ++i) {
    if (exclusive) {
      shared.writer[i] = file;
      file->writes[i] = true;
    } else if (!file->reads[i]) {
      ++shared.readers[i];
      file->reads[i] = true;
    }
  }
  return SQLITE_OK;
}

void ShmBarrier(sqlite3_file*) {}

int ShmUnmap(sqlite3_file* base, int) {
  File* const file = Of(base);
  if (!file->maps) return SQLITE_OK;
  ShmLock(base, 0, SQLITE_SHM_NLOCK, SQLITE_SHM_UNLOCK);
  file->maps = false;
  if (--(*file->shared)->users == 0) (*file->shared)->regions.clear();
  return SQLITE_OK;
}

constexpr sqlite3_io_methods kMethods = {2,
                                         Close,
                                         ReadFile,
                                         WriteFile,
                                         Truncate,
                                         Sync,
                                         FileSize,
                                         Lock,
                                         Unlock,
                                         CheckReservedLock,
                                         FileControl,
                                         SectorSize,
                                         Characteristics,
                                         ShmMap,
                                         ShmLock,
                                         ShmBarrier,
                                         ShmUnmap,
                                         nullptr,
                                         nullptr};

// --- The file system ---

std::shared_ptr<Shared> SharedOf(const std::string& path) {
  std::weak_ptr<Shared>& known = TheRegistry().shared[path];
  std::shared_ptr<Shared> shared = known.lock();
  if (shared == nullptr) known = shared = std::make_shared<Shared>();
  return shared;
}

int Open(sqlite3_vfs*, const char* name, sqlite3_file* base, int flags, int* out_flags) {
  base->pMethods = nullptr;
  if (name == nullptr) return SQLITE_CANTOPEN;  // a temporary file: they are kept in memory
  const std::string path = name;
  SimulatedDisk* const disk = DiskOf(path);
  if (disk == nullptr) return SQLITE_CANTOPEN;
  const bool writable = (flags & SQLITE_OPEN_READWRITE) != 0;
  auto file =
      disk->Open(path, writable ? storage::Disk::Mode::kReadWrite : storage::Disk::Mode::kRead);
  if (absl::IsNotFound(file.status()) && (flags & SQLITE_OPEN_CREATE) != 0) {
    file = disk->Create(path);
  }
  if (!file.ok()) return SQLITE_CANTOPEN;
  File* const made = new (base) File{};
  made->base.pMethods = &kMethods;
  made->disk = disk;
  made->file = file->release();
  made->path = new std::string(path);
  made->shared = new std::shared_ptr<Shared>(SharedOf(path));
  // Whoever may have created it, this connection or another one that never synced it.
  made->sync_directory =
      (flags & SQLITE_OPEN_CREATE) != 0 &&
      (flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL)) != 0;
  made->delete_on_close = (flags & SQLITE_OPEN_DELETEONCLOSE) != 0;
  if (out_flags != nullptr) *out_flags = flags;
  return SQLITE_OK;
}

int Delete(sqlite3_vfs*, const char* name, int sync_directory) {
  SimulatedDisk* const disk = DiskOf(name);
  if (disk == nullptr) return SQLITE_IOERR_DELETE;
  const absl::Status removed = disk->Remove(name);
  if (absl::IsNotFound(removed)) return SQLITE_IOERR_DELETE_NOENT;
  if (!removed.ok()) return SQLITE_IOERR_DELETE;
  if (sync_directory == 0) return SQLITE_OK;
  return CodeOf(disk->SyncDirectory(storage::ParentDirectory(name)), SQLITE_IOERR_DIR_FSYNC);
}

int Access(sqlite3_vfs*, const char* name, int, int* result) {
  SimulatedDisk* const disk = DiskOf(name);
  const auto size = disk == nullptr ? absl::NotFoundError("") : disk->SizeOf(name);
  // An empty file counts as none, as with SQLite's own.
  *result = size.ok() && *size > 0;
  return SQLITE_OK;
}

int FullPathname(sqlite3_vfs*, const char* name, int size, char* out) {
  if (std::strlen(name) >= static_cast<size_t>(size)) return SQLITE_CANTOPEN;
  std::strcpy(out, name);
  return SQLITE_OK;
}

int Randomness(sqlite3_vfs*, int size, char* out) {
  for (int i = 0; i < size; ++i) out[i] = static_cast<char>(TheRegistry().random->Next());
  return size;
}

int Sleep(sqlite3_vfs*, int micros) { return micros; }
int CurrentTime(sqlite3_vfs*, double* out) {
  *out = 2460000.5;
  return SQLITE_OK;
}
int CurrentTimeInt64(sqlite3_vfs*, sqlite3_int64* out) {
  *out = sqlite3_int64{212'544'000'000'000};
  return SQLITE_OK;
}
int LastError(sqlite3_vfs*, int, char*) { return 0; }

void MakeDefault() {
  static sqlite3_vfs vfs = {2,       sizeof(File), 512,       nullptr,          "quorate-sim",
                            nullptr, Open,         Delete,    Access,           FullPathname,
                            nullptr, nullptr,      nullptr,   nullptr,          Randomness,
                            Sleep,   CurrentTime,  LastError, CurrentTimeInt64, nullptr,
                            nullptr, nullptr};
  static const int registered = sqlite3_vfs_register(&vfs, 1);
  CHECK(registered == SQLITE_OK);
}

}  // namespace

SqliteMount::SqliteMount(std::string prefix, SimulatedDisk* disk, Random* random)
    : prefix_(std::move(prefix)) {
  MakeDefault();
  CHECK(TheRegistry().mounts.emplace(prefix_, Mount{disk, random}).second, "mounted twice");
  TheRegistry().random = random;
  // SQLite's own generator is seeded once in a process: begin it anew with each run.
  sqlite3_randomness(0, nullptr);
}

SqliteMount::~SqliteMount() { TheRegistry().mounts.erase(prefix_); }

}  // namespace quorate::sim
