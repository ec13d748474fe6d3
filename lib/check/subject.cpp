#include "lib/check/subject.h"

#include <algorithm>
#include <filesystem>

#include "lib/io/folder_listing.h"
#include "lib/io/sniff.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;
using Kind = ReadProblem::Kind;

constexpr std::string_view kConfigName = "adapter_config.json";
constexpr std::string_view kAddedTokens = "added_tokens.json";

std::string name_of(const std::string& path) { return fs::path(path).filename().string(); }

// "/a/b/" and "." have no last component of their own.
std::string folder_name(const std::string& folder) {
  std::error_code ignored;
  fs::path path = fs::weakly_canonical(folder, ignored);
  return path.filename().string();
}

// Reads what lies in a folder into a Subject; what cannot be read becomes a problem of it.
class Opener {
 public:
  explicit Opener(const std::string& path) : path_(path) {
    out_.given = path;
    std::error_code ignored;
    const bool folder = fs::is_directory(path, ignored);
    out_.folder = folder ? path : fs::path(path).parent_path().string();
    if (out_.folder.empty()) out_.folder = ".";
  }

  Subject open() {
    std::error_code ignored;
    if (!fs::exists(path_, ignored)) {
      out_.problems.push_back(
          {Kind::no_folder, "",
           Error(path_, "does not exist", "name a folder with adapter_config.json")});
      return std::move(out_);
    }
    try_to(Kind::no_folder, "", [&] { out_.listing = files_in(out_.folder); });
    read_config();
    read_weights();
    read_other_files();
    read_added_tokens();
    return std::move(out_);
  }

 private:
  template <class F>
  bool try_to(Kind kind, const std::string& file, F&& step) {
    try {
      step();
      return true;
    } catch (const Error& error) {
      out_.problems.push_back({kind, file, error});
      return false;
    }
  }

  bool lists(std::string_view name) const {
    return std::binary_search(out_.listing.begin(), out_.listing.end(), name);
  }

  std::string in_folder(std::string_view name) const {
    return join_path(out_.folder, std::string(name));
  }

  void read_config() {
    if (!lists(kConfigName)) {
      out_.problems.push_back(
          {Kind::no_config, "",
           Error(out_.folder, "has no adapter_config.json",
                 "an adapter is a folder with adapter_config.json and adapter_model.safetensors")});
      return;
    }
    out_.has_config = try_to(Kind::bad_config, std::string(kConfigName),
                             [&] { out_.config = read_json_file(in_folder(kConfigName)); });
  }

  Kind kind_of_failure() const {
    if (ending_in(out_.listing, {kIndexEnding}).size() == 1) return Kind::bad_shards;
    const auto weights = ending_in(out_.listing, {kSafetensorsEnding, ".bin", ".pt", ".pth"});
    return weights.empty() ? Kind::no_weights : Kind::bad_weights;
  }

  // Whether what is named .safetensors says of itself that it is something else.
  bool is_wrong_kind() const {
    const std::string file =
        path_.ends_with(kSafetensorsEnding) ? path_ : in_folder("adapter_model.safetensors");
    std::error_code ignored;
    return fs::is_regular_file(file, ignored) && sniff(*File::open(file)) != FileKind::unknown;
  }

  void read_weights() {
    Weights weights;
    if (!try_to(kind_of_failure(), "", [&] { weights = open_weights(path_, {"adapter_model"}); })) {
      if (is_wrong_kind()) out_.problems.back().kind = Kind::wrong_kind;
      return;
    }
    out_.sharded = !weights.index_path.empty();
    out_.main_file = name_of(out_.sharded ? weights.index_path : weights.files[0].file->path());
    out_.pickle = weights.pickled;
    for (SafetensorsFile& file : weights.files) add_own(file, weights.tensors);
  }

  void add_own(SafetensorsFile& file, TensorMap& tensors) {
    SubjectFile own{name_of(file.file->path()), {}};
    if (out_.sharded) {
      for (const TensorEntry& entry : file.header.tensors)
        if (auto node = tensors.extract(entry.name)) own.tensors.insert(std::move(node));
    } else {
      own.tensors.swap(tensors);
    }
    out_.own_files.push_back(own.name);
    out_.files.push_back(std::move(own));
    out_.open_files.push_back(std::move(file));
  }

  // SGLang reads every *.safetensors of the folder, whatever its name.
  void read_other_files() {
    for (const std::string& name : ending_in(out_.listing, {kSafetensorsEnding})) {
      const auto& own = out_.own_files;
      if (std::find(own.begin(), own.end(), name) != own.end()) continue;
      try_to(Kind::bad_weights, name, [&] {
        SafetensorsFile file = open_safetensors(in_folder(name));
        out_.files.push_back({name, file.tensors});
        out_.open_files.push_back(std::move(file));
      });
    }
    std::sort(out_.files.begin(), out_.files.end(),
              [](const SubjectFile& a, const SubjectFile& b) { return a.name < b.name; });
  }

  void read_added_tokens() {
    if (!lists(kAddedTokens)) return;
    try {  // SGLang only warns where this file is no JSON
      out_.added_tokens = read_json_file(in_folder(kAddedTokens));
    } catch (const Error& error) {
      out_.notes.push_back(error.what());
    }
  }

  std::string path_;
  Subject out_;
};

ServedAdapter served_of(const Subject& subject) {
  ServedAdapter out;
  out.name = folder_name(subject.folder);
  out.folder = subject.folder;
  out.has_config = subject.has_config;
  out.config = subject.config;
  out.added_tokens = subject.added_tokens;
  for (const SubjectFile& file : subject.files) {
    WeightFile& headers = out.files.emplace_back();
    headers.name = file.name;
    headers.tensors.reserve(file.tensors.size());
    for (const auto& [name, tensor] : file.tensors)
      headers.tensors.push_back({name, tensor.dtype(), tensor.shape()});
  }
  return out;
}

void gather_tensors(Subject& subject) {
  for (SubjectFile& file : subject.files) {
    const auto& own = subject.own_files;
    if (std::find(own.begin(), own.end(), file.name) != own.end())
      subject.tensors.merge(file.tensors);
  }
}

void load(Subject& subject, const SubjectOptions& options) {
  subject.loaded = interpret_tensors(subject.tensors, subject.experts, *subject.parsed_config,
                                     subject.spec(), options.load.from, options.load.read);
  const auto& notes = subject.loaded->notes;
  subject.notes.insert(subject.notes.end(), notes.begin(), notes.end());
}

// Runs one step of reading meaning into the files; its Error is kept, as the next steps go on.
template <class F>
std::optional<Error> error_of(F&& step) {
  try {
    step();
    return std::nullopt;
  } catch (const Error& error) {
    return error;
  }
}

}  // namespace

Subject open_subject(const std::string& path) { return Opener(path).open(); }

void interpret(Subject& subject, std::optional<BaseModel> base, const SubjectOptions& options) {
  subject.base = std::move(base);
  subject.served = served_of(subject);
  gather_tensors(subject);
  if (subject.has_config)
    subject.config_error = error_of([&] {
      subject.parsed_config =
          parse_adapter_config(subject.config, join_path(subject.folder, std::string(kConfigName)));
    });
  subject.layout_error = error_of([&] {
    subject.experts = expert_tensors(subject.tensors);
    subject.parts = take_apart(subject.tensors, subject.experts, subject.spec());
    if (!subject.experts.empty()) subject.layout = detect_layout(subject.experts);
  });
  if (subject.parsed_config && !subject.tensors.empty())
    subject.adapter_error = error_of([&] { load(subject, options); });
  if (options.values) subject.values = scan_values(subject.tensors, options.threads);
}

}  // namespace moelora
