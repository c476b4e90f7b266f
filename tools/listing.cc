#include "tools/listing.h"

#include <algorithm>

#include "tools/flags.h"

namespace quorate::tools {
namespace {

// What a node puts on a page when it is not told.
constexpr uint64_t kPageItems = 1000;

}  // namespace

CallResult ListAll(Client& client, v1::ListRequest request, uint64_t items_max,
                   const std::function<bool(const v1::ListResponse&)>& on_page) {
  uint64_t left = items_max == 0 ? UINT64_MAX : items_max;
  for (;;) {
    if (left < kPageItems) request.set_page_size(static_cast<uint32_t>(left));
    v1::ListResponse page;
    CallResult result = client.Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
      return endpoint.config->List(context, request, &page);
    });
    if (!result.ok()) return result;
    const bool more = on_page(page);
    left -= std::min(left, static_cast<uint64_t>(page.items_size()));
    if (!more || left == 0 || page.next_page_token().empty()) return result;
    TurnPage(page.next_page_token(), &request);
  }
}

}  // namespace quorate::tools
