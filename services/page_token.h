// The page tokens of List and History: where the next page begins, and which listing of which
// cluster it belongs to.
//
// A token is opaque to clients. It is the base64url text (RFC 4648 section 5, no padding) of:
//   1 byte   format, 1
//   8 bytes  cluster id
//   8 bytes  restore count of that cluster (0: nothing is restored in this build)
//   8 bytes  the revision that all pages show
//   8 bytes  XXH3-64 of the listing's shape: prefix and keys_only, or a history's key
//   n bytes  the last key of the page before, 1 to 1,024; a history's: the place of its last change
//   4 bytes  the low half of XXH3-64 of everything before it
// Numbers are little-endian. The checksum finds damage, not malice: a forged token shows nothing
// that List would not show anyway.
//
// Pure functions; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "grpcpp/support/status.h"

namespace quorate::services {

struct PageToken {
  ClusterId cluster;
  uint64_t restores = 0;
  Revision revision;
  uint64_t shape = 0;
  std::string after;  // the next page begins behind this key

  friend bool operator==(const PageToken&, const PageToken&) = default;
};

// What a token is bound to beside the cluster.
uint64_t ListingShape(std::string_view prefix, bool keys_only);
uint64_t HistoryShape(std::string_view key);

std::string EncodePageToken(const PageToken& token);

// Decodes `text` into `token` and checks that it belongs to this cluster and this listing.
// INVALID_ARGUMENT (PAGE_TOKEN_INVALID, field page_token), saying why, when it does not.
grpc::Status DecodePageToken(std::string_view text, ClusterId cluster, uint64_t restores,
                             uint64_t shape, PageToken* token);

}  // namespace quorate::services
