#include "tools/python/call.h"

#include <chrono>

namespace moelora::python {

JobControl Call::job() {
  JobControl out;
  out.cancelled = [this] {
    const std::lock_guard lock(mutex_);
    return stop_ || running_.stopped();
  };
  if (!progress_.is_none())
    out.progress = [this](const Progress& p) {
      if (p.total == 0) return;  // nobody knows how much it will be: no share to tell
      const std::lock_guard lock(mutex_);
      heard_ = Heard{std::string(p.stage), p.done, p.total};
    };
  return out;
}

void Call::finish() {
  const std::lock_guard lock(mutex_);
  done_ = true;
  changed_.notify_one();
}

bool Call::wait() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::milliseconds(50), [&] { return done_; });
}

void Call::attend() {
  if (running_.stopped()) return;
  const nb::gil_scoped_acquire held;
  if (raised_) return;
  try {
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
    report_progress();
  } catch (const nb::python_error&) {
    raised_ = std::current_exception();
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
}

void Call::report_progress() {
  std::optional<Heard> heard;
  {
    const std::lock_guard lock(mutex_);
    heard.swap(heard_);
  }
  if (!heard) return;
  const Running::InPython calling(running_);
  progress_(heard->stage, heard->done, heard->total);
}

// The words of an option stand where its flag would: "to='stackd'".
void set_error(const Error& error, const Words& words) {
  const auto spell = [&](Option option) { return words.spelling(option); };
  const Location& at = error.location();
  std::string where = at.text(spell);
  if (at.option && !at.item.empty())
    where = spell(*at.option) + nb::cast<std::string>(nb::repr(nb::cast(at.item)));
  const nb::object type = nb::module_::import_("moelora._error").attr("Error");
  const nb::object made = type(where, error.text(), error.advice().text(spell));
  PyErr_SetObject(type.ptr(), made.ptr());
}

}  // namespace moelora::python
