#include "storage/identity.h"

#include <sys/random.h>

#include <cerrno>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "storage/crc32c.h"

namespace quorate::storage {
namespace {

constexpr size_t kFileBytesMax = 4 * kBirthRecordBytesMax;
constexpr std::string_view kTitle = "quorate identity ";

// Takes the lines of the file one after the other, each of the form `key value`.
class LineReader {
 public:
  explicit LineReader(std::string_view text) : text_(text) {}
  // The value of the next line, which must have this key.
  std::optional<std::string> Next(std::string_view key) {
    size_t end = text_.find('\n');
    if (end == std::string_view::npos) return std::nullopt;
    std::string_view line = text_.substr(0, end);
    text_.remove_prefix(end + 1);
    if (!line.starts_with(key) || line.size() <= key.size() || line[key.size()] != ' ') {
      return std::nullopt;
    }
    return std::string(line.substr(key.size() + 1));
  }
  bool AtEnd() const { return text_.empty(); }

 private:
  std::string_view text_;
};

std::string ChecksumLine(std::string_view body) {
  return absl::StrFormat("crc32c %08x\n", Crc32c(body));
}

std::optional<bool> ParseFlag(const std::optional<std::string>& text) {
  if (text == "0") return false;
  if (text == "1") return true;
  return std::nullopt;
}

absl::Status Damaged(const std::string& what) {
  return absl::DataLossError(absl::StrCat("the identity file is damaged: ", what));
}

// The version in the first line; nullopt when that is no first line of ours.
std::optional<uint32_t> FormatVersion(const std::string& text) {
  size_t end = text.find('\n');
  if (end == std::string::npos || !std::string_view(text).starts_with(kTitle)) return std::nullopt;
  uint32_t version = 0;
  if (!absl::SimpleAtoi(text.substr(kTitle.size(), end - kTitle.size()), &version)) {
    return std::nullopt;
  }
  return version;
}

std::string EncodeAs(uint32_t version, const Identity& identity) {
  std::string text = absl::StrCat("quorate identity ", version,  //
                                  "\nnode \"", absl::CHexEscape(identity.node), "\"", "\nstore ",
                                  ToHex(identity.store),                  //
                                  "\ncluster ", ToHex(identity.cluster),  //
                                  "\nboot ", identity.boot,               //
                                  "\nlog_made ", identity.log_made ? 1 : 0, "\ncaught_up_once ",
                                  identity.caught_up_once ? 1 : 0);
  if (version > 1) absl::StrAppend(&text, "\npromised_ms ", identity.promised_ms);
  absl::StrAppend(&text, "\nbirth x", absl::BytesToHexString(identity.birth), "\n");
  return text + ChecksumLine(text);
}

}  // namespace

std::string EncodeIdentity(const Identity& identity) {
  return EncodeAs(kIdentityFormatVersion, identity);
}

absl::StatusOr<Identity> DecodeIdentity(const std::string& text) {
  // The first line and the checksum keep their meaning in every version, so that a flipped bit in
  // the version is damage and not a newer format.
  const size_t last = text.rfind("\ncrc32c ");
  if (last == std::string::npos) return Damaged("it has no checksum");
  const std::string body = text.substr(0, last + 1);
  if (text.substr(last + 1) != ChecksumLine(body)) return Damaged("its checksum is wrong");
  std::optional<uint32_t> version = FormatVersion(text);
  if (!version) return Damaged("its first line is not of this kind of file");
  if (*version == 0 || *version > kIdentityFormatVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("the identity file has format version ", *version, ", this build knows up to ",
                     kIdentityFormatVersion, "; use the build that wrote it, or a newer one"));
  }

  Identity identity;
  LineReader lines(body);
  lines.Next("quorate");
  std::optional<std::string> node = lines.Next("node");
  if (!node || node->size() < 2 || node->front() != '"' || node->back() != '"' ||
      !absl::CUnescape(node->substr(1, node->size() - 2), &identity.node) ||
      identity.node.empty()) {
    return Damaged("no node name in its second line");
  }
  std::optional<uint64_t> store = ParseHex(lines.Next("store").value_or(""));
  if (!store || *store == 0) return Damaged("no store id");
  identity.store = StoreId(*store);
  std::optional<uint64_t> cluster = ParseHex(lines.Next("cluster").value_or(""));
  if (!cluster) return Damaged("no cluster id");
  identity.cluster = ClusterId(*cluster);
  if (!absl::SimpleAtoi(lines.Next("boot").value_or(""), &identity.boot)) {
    return Damaged("no boot count");
  }
  std::optional<bool> log_made = ParseFlag(lines.Next("log_made"));
  std::optional<bool> caught_up = ParseFlag(lines.Next("caught_up_once"));
  if (!log_made || !caught_up) return Damaged("a flag is neither 0 nor 1");
  identity.log_made = *log_made;
  identity.caught_up_once = *caught_up;
  if (*version > 1 &&
      !absl::SimpleAtoi(lines.Next("promised_ms").value_or(""), &identity.promised_ms)) {
    return Damaged("no promised_ms");
  }
  std::optional<std::string> birth = lines.Next("birth");
  if (!birth || !birth->starts_with('x')) return Damaged("no birth record");
  identity.birth = absl::HexStringToBytes(birth->substr(1));
  if (!lines.AtEnd()) return Damaged("there is more than this version writes");
  // Whatever the lenient parsers above let pass (a sign, upper case): only our own text is ours.
  if (EncodeAs(*version, identity) != text) return Damaged("it is not as this version writes it");
  return identity;
}

IdentityFile::IdentityFile(Disk* disk, std::string path, Identity identity)
    : disk_(disk), path_(std::move(path)), identity_(std::move(identity)) {}

absl::StatusOr<std::unique_ptr<IdentityFile>> IdentityFile::Create(Disk* disk,
                                                                   const std::string& path,
                                                                   const std::string& node,
                                                                   StoreId store) {
  CHECK(store && !node.empty());
  absl::StatusOr<std::unique_ptr<DiskFile>> there = disk->Open(path, Disk::Mode::kRead);
  if (there.ok()) return absl::AlreadyExistsError(absl::StrCat(path, " is there already"));
  if (!absl::IsNotFound(there.status())) return there.status();
  Identity identity;
  identity.node = node;
  identity.store = store;
  if (absl::Status s = ReplaceFile(disk, path, EncodeIdentity(identity)); !s.ok()) return s;
  return std::unique_ptr<IdentityFile>(new IdentityFile(disk, path, std::move(identity)));
}

absl::StatusOr<std::unique_ptr<IdentityFile>> IdentityFile::Open(Disk* disk,
                                                                 const std::string& path,
                                                                 const std::string& node) {
  absl::StatusOr<std::string> text = ReadWholeFile(disk, path, kFileBytesMax);
  if (!text.ok()) return text.status();
  absl::StatusOr<Identity> identity = DecodeIdentity(*text);
  if (!identity.ok()) {
    return absl::Status(identity.status().code(),
                        absl::StrCat(path, ": ", identity.status().message()));
  }
  if (!node.empty() && identity->node != node) {
    return absl::FailedPreconditionError(absl::StrCat(
        ParentDirectory(path), " belongs to node ", identity->node, ", this configuration says ",
        node, "; use its own directory or fix controlPlane.raft.nodeId"));
  }
  return std::unique_ptr<IdentityFile>(new IdentityFile(disk, path, *std::move(identity)));
}

Identity IdentityFile::current() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return identity_;
}

absl::StatusOr<uint64_t> IdentityFile::NextBoot() {
  std::lock_guard<std::mutex> lock(mutex_);
  Identity next = identity_;
  const uint64_t boot = ++next.boot;
  if (absl::Status s = Save(std::move(next)); !s.ok()) return s;
  return boot;
}

absl::Status IdentityFile::SetBirth(std::string record) {
  std::lock_guard<std::mutex> lock(mutex_);
  Identity next = identity_;
  next.birth = std::move(record);
  return Save(std::move(next));
}

absl::Status IdentityFile::SetBorn(ClusterId cluster, std::string record) {
  std::lock_guard<std::mutex> lock(mutex_);
  CHECK(cluster && (!identity_.cluster || identity_.cluster == cluster));
  Identity next = identity_;
  next.cluster = cluster;
  next.birth = std::move(record);
  return Save(std::move(next));
}

absl::Status IdentityFile::SetCluster(ClusterId cluster) {
  std::lock_guard<std::mutex> lock(mutex_);
  CHECK(cluster && (!identity_.cluster || identity_.cluster == cluster));
  Identity next = identity_;
  next.cluster = cluster;
  return Save(std::move(next));
}

absl::Status IdentityFile::SetLogMade() {
  std::lock_guard<std::mutex> lock(mutex_);
  Identity next = identity_;
  next.log_made = true;
  return Save(std::move(next));
}

absl::Status IdentityFile::SetCaughtUpOnce() {
  std::lock_guard<std::mutex> lock(mutex_);
  Identity next = identity_;
  next.caught_up_once = true;
  return Save(std::move(next));
}

absl::Status IdentityFile::SetPromised(uint64_t milliseconds) {
  std::lock_guard<std::mutex> lock(mutex_);
  Identity next = identity_;
  next.promised_ms = milliseconds;
  return Save(std::move(next));
}

absl::Status IdentityFile::Save(Identity next) {
  CHECK(next.birth.size() <= kBirthRecordBytesMax);
  if (!failed_.ok()) return failed_;
  if (next == identity_) return absl::OkStatus();
  absl::Status written = ReplaceFile(disk_, path_, EncodeIdentity(next));
  if (!written.ok()) {
    failed_ = absl::Status(
        written.code(), absl::StrCat("the identity file cannot be written: ", written.message()));
    return failed_;
  }
  identity_ = std::move(next);
  return absl::OkStatus();
}

uint64_t RandomId() {
  uint64_t id = 0;
  while (id == 0) {
    ssize_t n = ::getrandom(&id, sizeof(id), 0);
    if (n != static_cast<ssize_t>(sizeof(id))) {
      CHECK(n >= 0 || errno == EINTR, "the kernel gives no random numbers");
      id = 0;
    }
  }
  return id;
}

}  // namespace quorate::storage
