#include "lib/check/subject/subject.h"

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/automodel_stamp.h"
#include "lib/io/file.h"
#include "lib/model/base_model.h"
#include "lib/numeric/stats/value_stats.h"

namespace moelora {
namespace {

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
  } catch (const MachineError&) {
    throw;
  } catch (const Error& error) {
    return error;
  }
}

}  // namespace

Subject::Subject() = default;
Subject::Subject(const Subject&) = default;
Subject::Subject(Subject&&) noexcept = default;
Subject& Subject::operator=(const Subject&) = default;
Subject& Subject::operator=(Subject&&) noexcept = default;
Subject::~Subject() = default;

const LinearSpec* Subject::linear_of(const NamedTensor& tensor) const {
  return tensor.linear < 0 ? nullptr : &spec()->linears[static_cast<size_t>(tensor.linear)];
}

Subject open_subject(const std::string& path, const InputOptions& options) {
  Subject out;
  static_cast<AdapterFolder&>(out) = read_adapter_folder(path, true, options);
  return out;
}

const Subject& in_peft_form(const Subject& subject) {
  if (subject.untranslated) throw *subject.untranslated;
  return subject.translated != nullptr ? *subject.translated : subject;
}

void interpret(Subject& subject, std::optional<BaseModel> base, const SubjectOptions& options) {
  subject.base = std::move(base);
  subject.served = served_adapter(subject);
  subject.tensors = subject.take_tensors();
  subject.dialect = detect_dialect(subject.tensors, subject.config, subject.set);
  if (subject.has_config)
    subject.config_error = error_of([&] {
      subject.parsed_config =
          parse_adapter_config(subject.config, join_path(subject.folder, std::string(kConfigName)));
      read_automodel_stamp(subject, options.load.links, *subject.parsed_config, subject.notes);
      const std::vector<std::string>& parameters = subject.parsed_config->target_parameters;
      subject.target_parameters = {parameters.begin(), parameters.end()};
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
