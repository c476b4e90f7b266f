#include "tools/interrupt.h"
#include "tools/listing.h"
#include "tools/text.h"
#include "tools/transfer.h"

namespace quorate::tools {

ExportSummary Export(Client& client, TreeWriter& writer, const ExportOptions& options,
                     Progress& progress) {
  ExportSummary summary;
  // The inverse of JoinKey: only what stands below the prefix, which loses its name.
  const std::string prefix = options.prefix.empty() ? "" : JoinKey(options.prefix, "");
  v1::ListRequest request;
  request.set_prefix(prefix);
  *request.mutable_read() = options.read;
  summary.result = ListAll(client, request, 0, [&](const v1::ListResponse& page) {
    summary.revision = page.header().revision();
    summary.node = page.header().node_id();
    for (const v1::Item& item : page.items()) {
      if (Interrupted()) {
        summary.interrupted = true;
        return false;
      }
      if (!item.ttl_id().empty() && !options.bound) {
        ++summary.bound;
        progress.Add();
        continue;
      }
      const std::string& bytes = item.has_data() ? item.data() : item.text();
      const std::string name = item.key().substr(prefix.size());
      const absl::Status status = writer.Write(name, bytes);
      progress.Add();
      if (status.ok()) {
        ++summary.written;
        summary.bytes += bytes.size();
        if (options.verbose) progress.Line("wrote " + Printable(name));
        continue;
      }
      const bool refused = status.code() == absl::StatusCode::kInvalidArgument;
      ++(refused ? summary.refused : summary.failed);
      progress.Line("quorate: " + std::string(refused ? "cannot be a file: " : "not exported: ") +
                    Printable(item.key()) + ": " + Printable(std::string(status.message())));
      // A full disk does not get better with the next file.
      if (status.code() == absl::StatusCode::kResourceExhausted) return false;
    }
    return true;
  });
  return summary;
}

}  // namespace quorate::tools
