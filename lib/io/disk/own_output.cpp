#include "lib/io/disk/own_output.h"

#include <fmt/core.h>
#include <sys/stat.h>

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/file.h"
#include "lib/io/json.h"
#include "lib/io/json_scan.h"
#include "lib/io/safetensors_header.h"

namespace moelora {
namespace {

using Names = std::vector<std::string>;

// "schema" and "files" of a conversion.json, whose tensors may be many thousands.
class ConversionReader final : public JsonHandler {
 public:
  void on(JsonToken& token) override {
    using Kind = JsonToken::Kind;
    const bool closes = token.kind == Kind::end_object || token.kind == Kind::end_array;
    if (closes) --depth_;
    if (depth_ == 1 && token.kind == Kind::key) key_ = token.text;
    if (depth_ == 1 && key_ == "schema" && token.kind == Kind::string)
      is_ours_ = token.text == "moelora.conversion/1";
    if (depth_ == 1 && key_ == "files" && token.kind == Kind::begin_array) lists_ = true;
    if (depth_ == 2 && key_ == "files" && token.kind == Kind::string) files_.push_back(token.text);
    if (token.kind == Kind::begin_object || token.kind == Kind::begin_array) ++depth_;
  }

  Error error_at(uint64_t, std::string what, std::string hint) const override {
    return {"conversion.json", std::move(what), std::move(hint)};
  }

  std::optional<Names> files() const {
    return is_ours_ && lists_ ? std::optional(files_) : std::nullopt;
  }

 private:
  int depth_ = 0;
  std::string key_;
  bool is_ours_ = false, lists_ = false;
  Names files_;
};

std::optional<Names> in_conversion(const std::string& folder) {
  constexpr int kMaxDepth = 16;
  ConversionReader reader;
  scan_json(read_text({folder, "conversion.json", Links::within}, kMaxHeaderBytes), kMaxDepth,
            reader);
  return reader.files();
}

std::optional<Names> in_config(const std::string& folder) {
  const Json config = read_json_file({folder, "config.json", Links::within});
  const Json* mark = config.find("moelora");
  const Json* files = mark != nullptr ? mark->find("files") : nullptr;
  if (files == nullptr || !files->is(Json::Kind::array)) return std::nullopt;
  Names out;
  for (const Json& file : files->items())
    if (file.is(Json::Kind::string)) out.push_back(file.as_string());
  return out;
}

bool is_folder(const std::string& path) {
  struct stat s {};
  return ::lstat(path.c_str(), &s) != 0 || S_ISDIR(s.st_mode);
}

}  // namespace

std::optional<Names> files_of_output(const std::string& folder) {
  for (const auto& read : {in_conversion, in_config}) try {
      if (auto files = read(folder)) return files;
    } catch (const MachineError&) {
      throw;
    } catch (const Error&) {  // not there, or not as we write it
    }
  return std::nullopt;
}

Names replaceable_files(const std::string& folder, const std::string& where) {
  const Hint by_hand = "name another output, or remove that folder yourself";
  Names names = names_in(folder);
  if (names.empty()) return names;
  const auto ours = files_of_output(folder);
  if (!ours)
    throw Error(in_file(where),
                "is a folder without a list of files that lora-convert wrote (in conversion.json, "
                "or config.json of a base), hence no output that --force may replace",
                by_hand);
  for (const std::string& name : names)
    if (std::find(ours->begin(), ours->end(), name) == ours->end() ||
        is_folder(join_path(folder, name)))
      throw Error(in_file(where),
                  fmt::format("holds {}, which lora-convert did not write: --force does not "
                              "replace it",
                              printable(name)),
                  by_hand);
  return names;
}

}  // namespace moelora
