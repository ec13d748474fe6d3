#include <algorithm>
#include <array>
#include <filesystem>

#include "lib/adapter/conversion_report.h"
#include "lib/adapter/convert.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

// Files that belong to an adapter's user, not to its weights. Unknown files stay behind: SGLang
// loads every weight file it finds in the folder.
bool is_carried(const std::string& name) {
  constexpr std::array<std::string_view, 10> kStarts = {
      "README",       "LICENSE", "NOTICE", "tokenizer",     "special_tokens_map",
      "added_tokens", "vocab",   "merges", "chat_template", "generation_config"};
  return std::any_of(kStarts.begin(), kStarts.end(),
                     [&](std::string_view start) { return name.starts_with(start); });
}

std::vector<std::string> carried_files(const std::string& folder) {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file() && is_carried(entry.path().filename().string()))
      out.push_back(entry.path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

// The output as it lies in the temporary folder; its config is written last and is not there yet.
AdapterFiles staged_files(const Conversion& c, OutputFolder& folder) {
  AdapterFiles out;
  out.folder = folder.staged();
  out.config = parse_adapter_config(parse_json(c.config.dump(), "adapter_config.json"),
                                    folder.path() + "/adapter_config.json");
  out.weights = open_weights(out.folder, {"adapter_model"});
  return out;
}

}  // namespace

WrittenConversion write_conversion(const Conversion& c, const std::string& out,
                                   const WriteFolderOptions& options) {
  std::vector<FilePtr> inputs;
  for (const SafetensorsFile& file : c.input.files.weights.files) inputs.push_back(file.file);
  inputs.push_back(File::open(c.input.files.config.where));
  OutputFolder folder(out, std::move(inputs), options.output);
  WrittenConversion written{write_weights(folder, "adapter_model", c.tensors, options.weights), 0};
  for (const std::string& name : carried_files(c.input.files.folder))
    if (!c.fitting || c.fitting->left_files.count(name) == 0)
      folder.copy_file(name, (fs::path(c.input.files.folder) / name).string());
  folder.write_text("conversion.json", conversion_report(c, written.weights));
  if (options.verify) written.verified = options.verify(c, staged_files(c, folder));
  folder.commit("adapter_config.json", c.config.dump() + "\n");
  return written;
}

}  // namespace moelora
