// Reads a listing to its end, a page at a time, all pages at one revision.
#pragma once

#include <functional>

#include "quorate/v1/config.pb.h"
#include "tools/client.h"

namespace quorate::tools {

// Calls `on_page` with each page of `request` (whose page_token is where to begin) until the last,
// an error, or until it returns false. One page is in memory at a time. `items_max` 0: all.
CallResult ListAll(Client& client, v1::ListRequest request, uint64_t items_max,
                   const std::function<bool(const v1::ListResponse&)>& on_page);

}  // namespace quorate::tools
