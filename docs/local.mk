# docs: manual pages, written in scdoc. `make docs` formats them, `make install` installs them where scdoc is there.
MANUALS = $(patsubst %.scd,%,$(notdir $(wildcard $(top_srcdir)/docs/*.scd)))
EXTRA_DIST += docs/interfaces.md

.PHONY: docs
docs: $(addprefix docs/,$(MANUALS))

docs/%: $(top_srcdir)/docs/%.scd
	@$(MKDIR_P) docs
	$(AM_V_GEN)scdoc < $< > $@.tmp && mv $@.tmp $@

install-data-local: docs
	@for page in $(MANUALS); do \
		section=$${page##*.}; \
		$(MKDIR_P) "$(DESTDIR)$(mandir)/man$$section" && \
		$(INSTALL_DATA) docs/$$page "$(DESTDIR)$(mandir)/man$$section/$$page" || exit 1; \
	done
