// What a watch says, as bytes: v1::WatchResponse without its header, which is the node's own and is
// put before these by whoever sends them (fields of one message may come in any order).
//
// Pure functions. Internal to ingress/watch*.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/change.h"
#include "base/ids.h"
#include "quorate/v1/config.pb.h"

namespace quorate::ingress {

using SharedBytes = std::shared_ptr<const std::string>;

// Events of one revision, or the part of them that fits in one message.
struct EncodedEvents {
  SharedBytes body;
  Revision revision;
  ChangePosition after;  // where this message ends
  bool partial = false;  // more of this revision follows
  uint64_t events = 0;
};

// How changes are put into messages.
struct EncodeOptions {
  bool with_previous = false;
  size_t message_bytes = 1u << 20;  // about; one event may exceed it
};

// Messages for `changes`, which are all that matter in [begin, end), in order. `open`: a partial
// message of begin.revision has been sent, so that its last one has to come, be it empty.
std::vector<EncodedEvents> EncodeChanges(const EncodeOptions& options, ChangePosition begin,
                                         const std::vector<const Change*>& changes,
                                         ChangePosition end, bool open);

// Messages for a portion of a state: events without resume_revision.
std::vector<SharedBytes> EncodeState(const EncodeOptions& options,
                                     const std::vector<Change>& items);

// A message without events; `mark` has what it says.
SharedBytes EncodeMark(const v1::WatchResponse& mark, Revision resume);

}  // namespace quorate::ingress
