package config

import (
	"errors"
	"os/user"
	"slices"
	"strconv"
)

// userID returns the number of a user, who need not exist when it is a number.
func userID(name string) (int, error) {
	if id, err := strconv.ParseInt(name, 10, 32); err == nil && id >= 0 {
		return int(id), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(u.Uid)
}

// groupID is userID for groups.
func groupID(name string) (int, error) {
	if id, err := strconv.ParseInt(name, 10, 32); err == nil && id >= 0 {
		return int(id), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// resolve looks a name up and reports a problem with it; nil when there is one.
func (l *loader) resolve(t *table, key, name string, lookup func(string) (int, error)) *int {
	return l.resolveAt(t, key, whole, name, lookup)
}

func (l *loader) resolveAt(t *table, key, at, name string, lookup func(string) (int, error)) *int {
	id, err := lookup(name)
	var noUser user.UnknownUserError
	var noGroup user.UnknownGroupError
	switch {
	case err == nil:
		return &id
	case errors.As(err, &noUser):
		t.errorAt(key, at, "there is no user %q", name)
	case errors.As(err, &noGroup):
		t.errorAt(key, at, "there is no group %q", name)
	default:
		t.errorAt(key, at, "cannot look up %q: %v", name, err)
	}
	return nil
}

// identity resolves user, group and supplementary groups of a pool. With a user
// the groups the system knows for it are taken too, as systemd does.
func (l *loader) identity(t *table, p *Pool) {
	p.UID, p.GID = -1, -1
	if p.Group != "" {
		if id := l.resolve(t, "group", p.Group, groupID); id != nil {
			p.GID = *id
		}
	}
	if p.User != "" {
		if id := l.resolve(t, "user", p.User, userID); id != nil {
			p.UID = *id
			l.userGroups(t, p)
		}
	}
	for i, name := range p.SupplementaryGroups {
		if id := l.resolveAt(t, "supplementary_groups", element(i), name, groupID); id != nil {
			p.Groups = append(p.Groups, *id)
		}
	}
	slices.Sort(p.Groups)
	p.Groups = slices.DeleteFunc(slices.Compact(p.Groups), func(id int) bool { return id == p.GID })
	if len(p.Groups) == 0 {
		p.Groups = nil
	}
}

// userGroups takes the primary group, when none is stated, and the others.
func (l *loader) userGroups(t *table, p *Pool) {
	u, err := user.LookupId(strconv.Itoa(p.UID))
	if err != nil {
		if p.Group == "" {
			t.errorf("user", "there is no user with the number %d to take the group from (state group, too)", p.UID)
		}
		return
	}
	if gid, err := strconv.Atoi(u.Gid); err == nil && p.Group == "" {
		p.GID = gid
	}
	ids, err := u.GroupIds()
	if err != nil {
		t.errorf("user", "cannot find the groups of %q: %v", p.User, err)
	}
	for _, id := range ids {
		if gid, err := strconv.Atoi(id); err == nil {
			p.Groups = append(p.Groups, gid)
		}
	}
}

// number is an id as the file takes it, "" for nil.
func number(id *int) string {
	if id == nil {
		return ""
	}
	return strconv.Itoa(*id)
}
