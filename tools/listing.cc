#include "tools/listing.h"

namespace quorate::tools {

CallResult ListAll(Client& client, v1::ListRequest request,
                   const std::function<bool(const v1::ListResponse&)>& on_page) {
  for (;;) {
    v1::ListResponse page;
    CallResult result =
        client.Run(CallKind::kRead, [&](Endpoint& endpoint, grpc::ClientContext* context) {
          return endpoint.config->List(context, request, &page);
        });
    if (!result.ok()) return result;
    const bool more = on_page(page);
    if (!more || page.next_page_token().empty()) return result;
    request.set_page_token(page.next_page_token());
  }
}

}  // namespace quorate::tools
