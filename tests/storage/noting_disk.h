// The real disk, with an ear on it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "storage/disk.h"

namespace quorate::storage {

// The real disk, which notes what changes on it, in order; paths are below `root`.
class NotingDisk final : public Disk {
 public:
  explicit NotingDisk(std::string root) : root_(std::move(root)) {}

  absl::StatusOr<std::unique_ptr<DiskFile>> Create(const std::string& path) override {
    auto file = disk_->Create(path);
    if (!file.ok()) return file;
    return std::make_unique<NotingFile>(this, Name(path), *std::move(file));
  }
  absl::StatusOr<std::unique_ptr<DiskFile>> Open(const std::string& path, Mode mode) override {
    return disk_->Open(path, mode);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    Note("rename " + Name(from) + " " + Name(to));
    return disk_->Rename(from, to);
  }
  absl::Status Remove(const std::string& path) override { return disk_->Remove(path); }
  absl::Status MakeDirectory(const std::string& path) override {
    Note("make " + Name(path));
    return disk_->MakeDirectory(path);
  }
  absl::Status SyncDirectory(const std::string& path) override {
    Note("sync names in " + Name(path));
    return disk_->SyncDirectory(path);
  }
  absl::Status RemoveTree(const std::string& path) override { return disk_->RemoveTree(path); }
  absl::StatusOr<uint64_t> SizeOf(const std::string& path) override { return disk_->SizeOf(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    return disk_->List(path);
  }

  std::vector<std::string> notes;

 private:
  class NotingFile final : public DiskFile {
   public:
    NotingFile(NotingDisk* disk, std::string name, std::unique_ptr<DiskFile> file)
        : disk_(disk), name_(std::move(name)), file_(std::move(file)) {}
    absl::Status Write(uint64_t offset, std::string_view bytes) override {
      disk_->Note("write " + name_);
      return file_->Write(offset, bytes);
    }
    absl::StatusOr<std::string> Read(uint64_t offset, size_t size) override {
      return file_->Read(offset, size);
    }
    absl::StatusOr<uint64_t> Size() override { return file_->Size(); }
    absl::Status Allocate(uint64_t size) override { return file_->Allocate(size); }
    absl::Status Truncate(uint64_t size) override { return file_->Truncate(size); }
    absl::Status Sync() override {
      disk_->Note("sync " + name_);
      return file_->Sync();
    }

   private:
    NotingDisk* const disk_;
    const std::string name_;
    const std::unique_ptr<DiskFile> file_;
  };

  std::string Name(const std::string& path) const {
    return std::filesystem::relative(path, root_).generic_string();
  }
  void Note(const std::string& note) {
    if (notes.empty() || notes.back() != note) notes.push_back(note);
  }

  const std::string root_;
  const std::unique_ptr<Disk> disk_ = MakePosixDisk();
};

}  // namespace quorate::storage
